"""What callers may give, and sentences for what they may not. Light to import."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from edgewright.errors import InputError
from edgewright.folders import expanded
from edgewright.sizes import BYTES_MAX, parse_bytes
from edgewright_profiles import DeviceProfile, load_profile

CREDENTIALS_VARIABLE = "EDGEWRIGHT_CREDENTIALS"


def as_path(value: str | Path, what: str) -> Path:
    """Returns the path, a home folder written out. Raises InputError for anything else, and for what no path can be."""
    if not isinstance(value, (str, os.PathLike)):
        raise wrong_type(what, value, "a path")
    path = expanded(value)
    try:
        os.lstat(path)
    except ValueError:  # a NUL character
        raise wrong_type(what, value, "a path") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise wrong_type(what, value, "a path that is not so long") from None
    return path


def budget_of(profile: DeviceProfile, budget: str | int | None) -> int | None:
    """Returns `4GiB`, or a number of bytes, as bytes; None for None. Raises InputError, also beyond the memory."""
    if budget is None:
        return None
    if isinstance(budget, str):
        budget_bytes = parse_bytes(budget)
    elif isinstance(budget, int) and not isinstance(budget, bool) and 0 < budget <= BYTES_MAX:
        budget_bytes = budget
    else:
        wanted = f'a size, such as "4GiB", or a number of bytes from 1 to {BYTES_MAX}'
        raise wrong_type("the budget", budget, wanted)
    profile.require_within_memory(budget_bytes)
    return budget_bytes


def device_profile(device: str | Path | DeviceProfile) -> DeviceProfile:
    """Returns the profile of a device's id, alias or YAML file. Raises InputError."""
    if isinstance(device, DeviceProfile):
        return device
    as_path(device, "the device")
    return load_profile(os.fspath(device))  # as it was written: ./x is a file, x may be an id


def credentials_folder(credentials: str | Path | None) -> Path | None:
    """Returns the folder given, or the one that the environment names; None where neither does. Raises InputError."""
    named = credentials if credentials is not None else os.environ.get(CREDENTIALS_VARIABLE) or None
    return None if named is None else as_path(named, "credentials")


def wrong_type(what: str, value: object, wanted: str) -> InputError:
    """Returns the error for a value of a type that can't be used."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
    return InputError(f"For {what} {type(value).__name__} {shown} was given; expected {wanted}.")
