"""The doctor on what only root may read, as the systemd unit has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgewright_agent.cli import app
from edgewright_agent.doctor import checks
from edgewright_agent.doctor.checks import examine
from edgewright_agent.doctor.finding import Severity, Subject
from tests.agent.doctor.subjects import (
    as_root,
    finding_of,
    somebody_else,
    subject,
    tls,
)
from tests.fixtures.boards import write


def roots_own(root: Path, keys: Path, folder_mode: int) -> Subject:
    """A board whose configuration only root may read."""
    folder = root / "etc" / "edgewright"
    folder.mkdir(parents=True)
    for name in ("agent.pem", "agent.key", "ca.pem", "release.pub"):
        (folder / name).write_bytes((keys / name).read_bytes())
        (folder / name).chmod(0o600)
    folder.chmod(folder_mode)
    return subject(root, tls=tls(folder), trust=(folder / "release.pub",))


@as_root
@pytest.mark.parametrize("folder_mode", [0o755, 0o700])
def test_what_only_root_may_read_is_looked_at_as_root(
    open_folder: Path, keys: Path, folder_mode: int
) -> None:
    what = roots_own(open_folder, keys, folder_mode)
    with somebody_else():
        findings = examine(what)
    for name in ("certificates", "trust", "tls files"):
        assert findings[name].result is Severity.WARNING
        assert findings[name].sentence.startswith(f"This user may not read {open_folder}/etc/edgewright/")
        assert "`sudo edgewright-agent doctor …`" in findings[name].remedy
    assert not any(each.result is Severity.PROBLEM for each in findings.values())
    assert not any("could not be checked" in each.sentence for each in findings.values())
    findings = examine(what)
    for name in ("certificates", "trust", "tls files", "key mode", "secrets"):
        assert findings[name].result is Severity.OK


@as_root
def test_the_command_looks_for_what_it_may_not_see(
    open_folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots_own(open_folder, keys, 0o700)
    monkeypatch.setattr("edgewright_agent.doctor.command.CONFIGURATION", open_folder / "etc" / "edgewright")
    options = ["doctor", "--root", str(open_folder), "--store", str(open_folder), "--no-engines", "--json"]
    with somebody_else():
        result = CliRunner().invoke(app, options)
    rows = {row["check"]: row for row in json.loads(result.stdout)["findings"]}
    assert [rows[name]["result"] for name in ("certificates", "trust", "tls files")] == ["warning"] * 3


@pytest.mark.parametrize(
    ("version", "environment", "result"),
    [
        (245, "EDGEWRIGHT_PROFILE=x", "warning"),
        (237, "", "warning"),
        (245, "EDGEWRIGHT_PROFILE=x\nCREDENTIALS_DIRECTORY=/etc/edgewright", "ok"),
        (249, "", "ok"),
    ],
)
def test_a_systemd_that_knows_no_credentials_is_told_where_they_are(
    tmp_path: Path, version: int, environment: str, result: str
) -> None:
    assert checks.CHECKS["systemd"](subject(tmp_path)) is None
    write(tmp_path, f"lib/systemd/libsystemd-shared-{version}.so", "")
    write(tmp_path, "etc/edgewright/agent.env", environment)
    finding = finding_of("systemd", subject(tmp_path))
    assert finding.result is Severity(result)
    assert f"systemd {version}" in finding.sentence
    assert finding.result is Severity.OK or "CREDENTIALS_DIRECTORY=/etc/edgewright" in finding.remedy
