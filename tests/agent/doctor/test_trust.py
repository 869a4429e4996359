"""The doctor on whom the board trusts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from edgewright.dsse import key_id
from edgewright.trust.keys import load_trust
from edgewright_agent.doctor.finding import Severity, Subject
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.trust import Trust
from edgewright_builder.keys.key_files import public_pem
from tests.agent.doctor.subjects import (
    finding_of,
    subject,
)
from tests.support.artifacts import RELEASE_KEY
from tests.support.trust_documents import ISSUED, NEW_RELEASE, ROOT, revocation, signed, signers


def held(tmp_path: Path, **fields: Any) -> Subject:
    """A board that was started with `--trust release.pub` and sent trust document 1 since."""
    (tmp_path / "release.pub").write_bytes(public_pem(RELEASE_KEY))
    folder, now = Layout(tmp_path / "store").trust, ISSUED.timestamp()
    base = Trust(load_trust([tmp_path / "release.pub"]), folder, clock=lambda: now)
    base.update([signed(1, (ROOT, RELEASE_KEY), **fields)])
    return subject(tmp_path, store=tmp_path / "store", trust=(tmp_path / "release.pub",))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_store_s_trust_document_counts_and_is_not_touched(tmp_path: Path) -> None:
    what = held(tmp_path, expires=ISSUED + timedelta(days=365))
    folder = tmp_path / "store" / "trust"
    (folder / ".tmp-00000002.json").write_bytes(b"an agent is writing it")
    before = contents(folder)
    for days, result, says in (
        (1, "ok", "Trust document 1 is valid until 2027-11-01"),
        (340, "warning", "expires on 2027-11-01"),
        (366, "problem", "expired on 2027-11-01"),
    ):
        now = (ISSUED + timedelta(days=days)).timestamp()
        finding = finding_of("trust", replace(what, clock=partial(float, now)))
        assert (finding.result, says in finding.sentence) == (Severity(result), True), finding
    assert contents(folder) == before


def test_a_damaged_trust_document_in_the_store_is_a_problem(tmp_path: Path) -> None:
    what = held(tmp_path)
    assert finding_of("trust", what).result is Severity.OK
    (tmp_path / "store" / "trust" / "00000001.json").write_bytes(b"{}")
    finding = finding_of("trust", what)
    assert finding.result is Severity.PROBLEM
    assert "00000001.json is damaged" in finding.sentence


def test_a_key_of_the_command_line_that_the_store_s_document_revokes_is_named(tmp_path: Path) -> None:
    what = held(tmp_path, release=signers(RELEASE_KEY, NEW_RELEASE), revoked=[revocation()])
    finding = finding_of("trust", what)
    assert finding.result is Severity.WARNING
    assert f"--trust names the key {key_id(RELEASE_KEY.public_key())[:12]}" in finding.sentence
    assert f"need 1 of the keys {key_id(NEW_RELEASE.public_key())[:12]}." in finding.sentence
