"""Loads profiles: by id or alias from this package, or from a path to a YAML file."""

from __future__ import annotations

import difflib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.errors import InputError
from edgewright.file_model import checked
from edgewright.folders import expanded
from edgewright.yaml_files import parse_mapping, read_mapping
from edgewright_profiles.schema import DeviceProfile
from edgewright_profiles.this_host import THIS_HOST, this_host

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def list_profiles() -> tuple[str, ...]:
    """Ids of all built-in profiles, sorted, `this-host` last."""
    return (*sorted(_files()), THIS_HOST)


def load_profile(name: str | Path) -> DeviceProfile:
    """Returns the profile with this id or alias, or in this YAML file.

    Raises InputError for an unknown id (with the nearest ones), an unreadable file, or a missing or
    impossible figure (with its field).
    """
    text = str(name)
    if text == THIS_HOST:
        return this_host()
    if text in _files():
        return _builtin(text)
    if isinstance(name, Path) or names_file(text):
        return checked(DeviceProfile, read_mapping(expanded(name), "device profile"), text)
    if text in _aliases():
        return _builtin(_aliases()[text])
    raise InputError(_unknown(text))


def names_file(text: str) -> bool:
    """Whether a profile is named by its file's path."""
    return text.endswith((".yaml", ".yml")) or "/" in text


def parse_profile(text: str, where: str) -> DeviceProfile:
    """Returns the profile in a YAML document; `where` names it in errors. Raises InputError."""
    return checked(DeviceProfile, parse_mapping(text, where, "device profile"), where)


@lru_cache(maxsize=1)
def _files() -> dict[str, Traversable]:
    """Returns the built-in files by profile id, which is the file's name."""
    files = resources.files(__package__).iterdir()
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


@lru_cache
def _builtin(profile_id: str) -> DeviceProfile:
    file = _files()[profile_id]
    return parse_profile(file.read_text(encoding="utf-8"), file.name)


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    return {alias: profile_id for profile_id in _files() for alias in _builtin(profile_id).aliases}


def _unknown(name: str) -> str:
    known = [*list_profiles(), *_aliases()]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`edgewright profiles list` shows all."
    return f"There is no device profile {name!r}; {hint}"
