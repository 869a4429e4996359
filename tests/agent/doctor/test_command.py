"""The doctor's command: its report, its exit code, and checks that break."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgewright.address import Address
from edgewright_agent.cli import app
from edgewright_agent.doctor import checks
from edgewright_agent.doctor.checks import examine
from edgewright_agent.doctor.finding import Finding, Severity, Subject
from edgewright_agent.doctor.report import lines
from tests.agent.doctor.subjects import (
    finding_of,
    subject,
)
from tests.fixtures.boards import write, write_board


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        assert "is in use" in finding_of("port", subject(tmp_path, listen=address)).sentence
    assert finding_of("port", subject(tmp_path, listen=Address("192.0.2.1", 7443))).result is Severity.PROBLEM


def test_a_check_that_breaks_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Subject) -> Finding:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(checks.CHECKS, "clock", broken)
    findings = examine(subject(tmp_path, store=tmp_path))
    assert "could not be checked" in findings["clock"].sentence
    assert findings["disk space"].result is not None


def test_no_file_of_a_board_makes_the_doctor_stumble(tmp_path: Path) -> None:
    for number, board in enumerate(("orin-nano", "thor", "x86-rapl")):
        root = write_board(board, tmp_path / str(number))
        for path in [path for path in root.rglob("*") if path.is_file()]:
            path.write_bytes(b"\xff\x00garbage\n" * 3)
        findings = examine(subject(root))
        assert not any("could not be checked" in each.sentence for each in findings.values())


def test_the_command_prints_words_or_json_and_exits_by_what_it_found(tmp_path: Path) -> None:
    board = write_board("orin-nano", tmp_path / "board")
    options = [
        "doctor",
        "--root",
        str(board),
        "--store",
        str(tmp_path),
        "--no-engines",
        "--listen",
        "127.0.0.1:0",
    ]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 1
    assert "problem Jetson Linux" in result.stdout
    assert "→ `sudo apt update" in result.stdout
    result = CliRunner().invoke(app, [*options, "--json"])
    document = json.loads(result.stdout)
    assert document["healthy"] is False
    assert {row["result"] for row in document["findings"]} >= {"ok", "problem"}
    write(board, "etc/nv_tegra_release", "# R36 (release), REVISION: 5.0, GCID: 1")
    assert CliRunner().invoke(app, options).exit_code == 0


def test_the_report_is_one_line_a_finding_and_one_a_remedy() -> None:
    findings = {
        "clock": Finding(Severity.OK, "It is now."),
        "disk": Finding(Severity.PROBLEM, "Full.", "Empty it."),
    }
    assert [line for _, line in lines(findings)] == [
        "ok      clock  It is now.",
        "problem disk   Full.",
        "               → Empty it.",
        "1 ok, 0 warnings, 1 problem",
    ]
