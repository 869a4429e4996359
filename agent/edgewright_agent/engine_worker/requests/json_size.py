"""How many values a JSON text holds, found without building any of them."""

from __future__ import annotations

import re
from itertools import islice

# Strings whole, so that what is inside them is passed over, and what begins or separates values. A string that never
# ends matches too: the search must not begin again inside it.
_PART = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{,]', re.DOTALL)
_BEFORE_A_VALUE = (b"[", b"{", b",")


def count_values(data: bytes | bytearray, most: int) -> int:
    """Returns at least the number of values in `data`, objects, arrays and members counted; at most `most` + 1.

    Counts what begins or separates values. Whatever is wrong with the JSON is the parser's business.
    """
    if sum(data.count(character) for character in _BEFORE_A_VALUE) < most:  # commas in strings counted, too
        return min(most, 1 + sum(data.count(character) for character in _BEFORE_A_VALUE))
    separators = (match for match in _PART.finditer(data) if data[match.start()] != ord('"'))
    return 1 + sum(1 for _ in islice(separators, most))
