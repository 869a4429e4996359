"""The rules of a rollout: how devices fall into waves, and when it stops. Pure functions.

A wave is given as its size so far: `1,10%,50%,100%` means one device first, then up to a tenth of the fleet, then half
of it, then all. Two thresholds guard the way, as in hawkBit's rollout groups and AWS IoT's AbortConfig:

    errors    failed / attempted  > abort_over   → no further device is begun
    success   committed / wave    < proceed_at   → no further wave is begun

`failed` means that a board took the release and did not keep it, refused it, gave no verdict in time, or that something
failed for it: its disk, its engine, a certificate, a file on the host. A board whose link could not be made or broke,
or that was busy, has not failed: it is missing from `committed`, so that dead links hold a rollout up but do not
condemn the release. Where the release is only to be staged, `staged` counts as `committed` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from edgewright.errors import InputError

DEFAULT_WAVES = "1,10%,50%,100%"


class DeviceOutcome(Enum):
    """How a rollout ended for one device."""

    COMMITTED = "committed"
    STAGED = "staged"  # and not activated, as asked
    ROLLED_BACK = "rolled back"
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    BUSY = "busy"


SUCCESSES = (DeviceOutcome.COMMITTED, DeviceOutcome.STAGED)
FAILURES = (DeviceOutcome.ROLLED_BACK, DeviceOutcome.REFUSED, DeviceOutcome.TIMED_OUT, DeviceOutcome.FAILED)


@dataclass(frozen=True)
class Thresholds:
    """When to stop; both are fractions."""

    abort_over: float = 0.05
    proceed_at: float = 0.9


def wave_ends(text: str, devices: int) -> list[int]:
    """Returns the number of devices reached at the end of each wave; the last is all of them.

    Percentages are rounded up. Raises InputError for a wave that is malformed or not larger than the one before.
    """
    ends: list[int] = []
    for part in text.split(","):
        end = _end(part.strip(), devices)
        if ends and end < ends[-1]:
            raise InputError(
                f"The waves {text!r} shrink at {part.strip()!r}; each counts all devices so far."
            )
        if not ends or end > ends[-1]:  # in a small fleet two waves can be one
            ends.append(end)
    return ends if ends[-1] == devices else [*ends, devices]


def abort_reason(outcomes: Sequence[DeviceOutcome], thresholds: Thresholds) -> str | None:
    """Returns why no further device may be begun, given how those of this rollout ended; None if one may."""
    attempted = [outcome for outcome in outcomes if outcome in SUCCESSES + FAILURES]
    failed = sum(outcome in FAILURES for outcome in attempted)
    if not failed or failed / len(attempted) <= thresholds.abort_over:
        return None
    share, limit = 100 * failed / len(attempted), 100 * thresholds.abort_over
    return f"{failed} of {len(attempted)} devices did not keep the release ({share:.0f} %, the limit is {limit:g} %)"


def hold_reason(wave: Sequence[DeviceOutcome], thresholds: Thresholds) -> str | None:
    """Returns why the next wave may not begin after this one; None if it may."""
    committed = sum(outcome in SUCCESSES for outcome in wave)
    if committed >= thresholds.proceed_at * len(wave):
        return None
    needed = math.ceil(thresholds.proceed_at * len(wave))
    return f"{committed} of the wave's {len(wave)} devices committed, and {needed} must before the next wave"


def parse_share(text: str) -> float:
    """`5%` as 0.05; raises InputError outside 0–100 %."""
    number = text.strip().removesuffix("%")
    try:
        percent = float(number)
    except ValueError:
        percent = math.nan
    if not text.strip().endswith("%") or not 0 <= percent <= 100:
        raise InputError(f"{text!r} is not a share between 0% and 100%, as in 5%.")
    return percent / 100


def _end(part: str, devices: int) -> int:
    if part.endswith("%"):
        return max(1, math.ceil(round(parse_share(part) * devices, 9)))
    if not (part.isascii() and part.isdigit()) or int(part) == 0:
        raise InputError(f"The wave {part!r} is neither a number of devices nor a share, as in 1,10%,100%.")
    return min(int(part), devices)
