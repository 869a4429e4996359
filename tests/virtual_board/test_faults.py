"""A doctor that misses a fault, or sees one that is not there, ends the trial; what was broken is mended either way."""

from __future__ import annotations

import json
from typing import cast

import pytest
from virtual_board.faults import TOGETHER, check_faults
from virtual_board.machine import Machine, Reply
from virtual_board.needs import NeedError

FAULTS = [fault for faults in TOGETHER for fault in faults]
CHECKS = sorted({"port", "swap"} | {check for fault in FAULTS for check in fault.checks})
HEALTHY = dict.fromkeys(CHECKS, "ok")


class PretendedBoard:
    """Knows what is broken, and answers as its doctor."""

    def __init__(self, blind_to: str = "", dreams_of: str = "") -> None:
        self.blind_to, self.dreams_of = blind_to, dreams_of
        self.broken: set[str] = set()

    def must(self, command: str) -> str:
        for fault in FAULTS:
            if command == fault.break_command:
                self.broken |= fault.checks
            if command == fault.mend_command:
                self.broken -= fault.checks
        return ""

    def run(self, command: str, *, seconds: float) -> Reply:
        seen = (self.broken | {self.dreams_of}) - {self.blind_to}
        if "--listen" not in command:
            seen.add("port")
        findings = [{"check": name, "result": "problem" if name in seen else "ok"} for name in CHECKS]
        return Reply(1, "a warning of another program\n" + json.dumps({"findings": findings}))


def examined(board: PretendedBoard) -> list[str]:
    return check_faults(cast("Machine", board), HEALTHY)


def test_a_doctor_that_is_right_about_each_fault_passes() -> None:
    assert len(examined(PretendedBoard())) == len(FAULTS) + 1


@pytest.mark.parametrize(
    "board", [PretendedBoard(blind_to="trust"), PretendedBoard(dreams_of="swap")], ids=["blind", "dreams"]
)
def test_a_doctor_that_is_wrong_about_one_is_told_and_all_is_mended(board: PretendedBoard) -> None:
    with pytest.raises(NeedError, match="were broken"):
        examined(board)
    assert not board.broken
