"""Refusals print sizes that people read."""

from __future__ import annotations

import pytest

from edgewright_agent.engine_worker.model.backend import InvalidRequestError
from edgewright_agent.engine_worker.requests.limits import RequestLimits
from edgewright_agent.engine_worker.requests.sizes import in_words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 bytes"), (1023, "1023 bytes"), (1536, "1,536 bytes (1.5 KiB)"),
        (1_500_000, "1,500,000 bytes (1.4 MiB)"), (2**22, "4,194,304 bytes (4.0 MiB)"),
    ],
)  # fmt: skip
def test_a_size_is_said_to_the_byte_and_in_words(size_bytes: int, words: str) -> None:
    assert in_words(size_bytes) == words


def test_a_prompt_that_is_too_long_is_refused_with_sizes_that_people_read() -> None:
    limits = RequestLimits(1024, 16, 16 * 1024, 2**20, 1000)
    with pytest.raises(InvalidRequestError) as error:
        limits.check_text("x" * 1_500_000)
    assert "1,500,000 bytes (1.4 MiB); at most 16,384 bytes (16.0 KiB) are accepted" in str(error.value)
