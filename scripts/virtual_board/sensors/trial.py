"""Boots a board with a Jetson's device tree, moves its sensors through known powers, and compares the joules."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from virtual_board.machine import Machine
from virtual_board.needs import NeedError
from virtual_board.sensors.comparison import Change, Comparison, Sampled, compare
from virtual_board.sensors.device_trees import BOARDS, Board, write_device_tree
from virtual_board.settings import Parts

CURVE_SECONDS = 60
ERROR_MAX = 0.01
SCRIPT = "/usr/local/lib/power_curve.py"


def measure(parts: Parts, name: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns what the board's script printed, for the board of that name."""
    board, folder = BOARDS[name], parts.folder / "board"
    tree = parts.folder / f"{name}.dtb"
    write_device_tree(board, tree)
    machine = Machine(parts, folder, device_tree=tree)
    machine.prepare()
    try:
        say(f"{name}: booted in {machine.boot():.0f} s")
        load_drivers(machine, board)
        arguments = shlex.join([board.profile, str(CURVE_SECONDS), json.dumps(chips(board))])
        said = machine.must(f"/opt/edgewright/bin/python3 {SCRIPT} {arguments}", seconds=CURVE_SECONDS + 600)
    finally:
        machine.cut()
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result


def load_drivers(machine: Machine, board: Board) -> None:
    """Loads the drivers, and the stub with the board's chips."""
    addresses = ",".join(f"{address:#x}" for address in board.addresses)
    for module in ("i2c-dev", "ina3221", "ina238", "ina2xx", f"i2c-stub chip_addr={addresses}"):
        machine.must(f"modprobe {module}")


def hold(machine: Machine, board: Board, watts: float) -> None:
    """Sets every rail to one power."""
    arguments = shlex.join(["hold", str(watts), json.dumps(chips(board))])
    machine.must(f"/opt/edgewright/bin/python3 {SCRIPT} {arguments}")


def chips(board: Board) -> list[dict[str, Any]]:
    """Returns the chips as the board's script takes them."""
    found: list[dict[str, Any]] = [
        {
            "kind": "ina3221",
            "address": chip.address,
            "rails": [channel or (None, 0) for channel in chip.channels],
        }
        for chip in board.ina3221
    ]
    found += [
        {"kind": "ina238", "address": address, "rails": [("VIN", shunt)]}
        for address, shunt in board.ina238.items()
    ]
    return found + [
        {"kind": "ina226", "address": address, "rails": [rail]} for address, rail in board.ina226.items()
    ]


def comparisons(result: dict[str, Any]) -> dict[str, Comparison]:
    """Returns the comparison of each rail. Raises NeedError where one was not counted."""
    missing = sorted(set(result["changes"]) - set(result["points"]))
    if missing:
        raise NeedError(f"no joules of {', '.join(missing)}")
    return {
        rail: compare(
            [Change(*change) for change in changes], [Sampled(*point) for point in result["points"][rail]]
        )
        for rail, changes in result["changes"].items()
    }


def table(name: str, rails: Mapping[str, Comparison]) -> str:
    """Returns a line for each rail."""
    return "\n".join(
        f"| {name} | {rail} | {row.set_joules:.1f} | {row.counted_joules:.1f} | {row.error:+.2%} | "
        f"{row.bound_joules / row.set_joules:.2%} | {row.gaps} | {row.samples} |"
        for rail, row in rails.items()
    )


def save_tree(result: dict[str, Any], file: Path) -> None:
    """Writes the chips' files as the tests' boards are written."""
    width = max(len(path) for path in result["files"]) + 2
    lines = [f"{path:{width}}{_content(text)}\n" for path, text in result["files"].items()]
    file.write_text("".join(lines), encoding="utf-8")


def _content(text: str) -> str:
    return "!ENODATA" if text == "!No data available" else text
