"""Boots a board with a Jetson's device tree, moves its sensors through known powers, and compares the joules."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from virtual_board.machine import Machine
from virtual_board.needs import NeedError
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
        machine.must("modprobe i2c-dev")
        for driver in ("ina3221", "ina238"):
            machine.must(f"modprobe {driver}")
        addresses = ",".join(f"{address:#x}" for address in board.addresses)
        machine.must(f"modprobe i2c-stub chip_addr={addresses}")
        arguments = shlex.join([board.profile, str(CURVE_SECONDS), json.dumps(chips(board))])
        said = machine.must(f"/opt/edgewright/bin/python3 {SCRIPT} {arguments}", seconds=CURVE_SECONDS + 600)
    finally:
        machine.cut()
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result


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
    return found + [
        {"kind": "ina238", "address": address, "rails": [("VIN", shunt)]}
        for address, shunt in board.ina238.items()
    ]


def table(name: str, result: dict[str, Any]) -> str:
    """Returns a line for each rail. Raises NeedError where one is missing."""
    if result["missing"]:
        raise NeedError(f"{name}: no joules of {', '.join(result['missing'])}")
    return "\n".join(
        f"| {name} | {rail} | {row['set']:.1f} | {row['counted']:.1f} | {error(row):+.2%} | {row['gaps']} |"
        for rail, row in result["rails"].items()
    )


def error(row: dict[str, float]) -> float:
    """Returns by what share the counted joules differ from those set."""
    return row["counted"] / row["set"] - 1


def save_tree(result: dict[str, Any], file: Path) -> None:
    """Writes the chips' files as the tests' boards are written."""
    width = max(len(path) for path in result["files"]) + 2
    lines = [f"{path:{width}}{_content(text)}\n" for path, text in result["files"].items()]
    file.write_text("".join(lines), encoding="utf-8")


def _content(text: str) -> str:
    return "!ENODATA" if text == "!No data available" else text
