"""Looks at what a power cut left of a store: old or new, whole, and with what a host was answered.

Runs on the host as a module, and on a board as a script, for file systems that the host's kernel does not know:

    python3 store_check.py DISK FILE_SYSTEM IMAGE-BYTES FIRST RELEASE.PUB CUTS-AS-JSON

DISK holds one image after another. Of each cut from image FIRST on, CUTS says what may be there. Prints a JSON list:
why each is lost, or null.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.trust.keys import load_trust
from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.state import State
from edgewright_agent.store import Space, Store
from edgewright_agent.trust import Trust


@dataclass(frozen=True)
class Survives:
    """What a board must know after a cut."""

    active: str | None  # release
    trust_version: int


class LostError(AssertionError):
    """A cut left something that must not be."""


def check_store(folder: Path, release_key: Path, allowed: Sequence[Survives]) -> None:
    """Raises LostError unless the store is whole and as one of those allowed."""
    trust = Trust(load_trust([release_key]), folder / "trust").document
    store = Store(folder, space=Space(reserve_bytes=0))
    try:
        saved = store.state.read()
        if store.state.is_lost:
            raise LostError("the state can't be read")
        state = State() if saved is None else State.from_json(saved)
        releases = store.releases()
        if activation_rules.without_lost(state, set(releases)).active != state.active:
            raise LostError(f"the active release {state.active} is lost")
        for release in releases.values():
            store.verify_release(release)
        if quarantined := list((folder / "quarantine").iterdir()):
            raise LostError(f"{len(quarantined)} files are in quarantine")
    finally:
        store.close()
    if state.active not in {each.active for each in allowed}:
        raise LostError(f"active is {state.active}, not one of {[each.active for each in allowed]}")
    version = 0 if trust is None else trust.version
    if version < min(each.trust_version for each in allowed):
        raise LostError(f"the trust document is {version}, and {allowed[0].trust_version} was answered for")


def _why_lost(
    disk: str, file_system: str, offset: int, size: int, key: Path, allowed: list[Survives]
) -> str | None:
    options = f"loop,offset={offset},sizelimit={size}"
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["mount", "-t", file_system, "-o", options, disk, place], check=True)
        try:
            store = next(
                (each for each in (Path(place), Path(place, "store")) if (each / "blobs").exists()), None
            )
            if store is not None:
                check_store(store, key, allowed)
            elif allowed[0].active is not None:
                return "there is no store"
        except LostError as lost:
            return str(lost)
        finally:
            subprocess.run(["umount", place], check=True)
    return None


def main() -> None:
    """Checks every image on the disk."""
    disk, file_system, size, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    key = Path(sys.argv[5])
    cuts = [[Survives(**each) for each in allowed] for allowed in json.loads(sys.argv[6])]
    print(
        json.dumps(
            [
                _why_lost(disk, file_system, number * size, size, key, allowed)
                for number, allowed in enumerate(cuts, first)
            ]
        )
    )


if __name__ == "__main__":
    main()
