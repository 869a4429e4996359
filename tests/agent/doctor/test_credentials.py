"""The doctor on clocks, certificates and key files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgewright.trust.keys import load_trust
from edgewright_agent.doctor.finding import Severity
from edgewright_builder.keys import trust_issuer
from edgewright_builder.keys.credentials import create_credentials
from tests.agent.doctor.subjects import (
    NOW,
    finding_of,
    subject,
    tls,
)


def test_a_clock_that_was_never_set_is_a_problem(tmp_path: Path, keys: Path) -> None:
    what = subject(tmp_path, tls=tls(keys), clock=lambda: 86400.0)
    assert "says 1970-01-02" in finding_of("clock", what).sentence
    assert "timedatectl" in finding_of("clock", what).remedy
    assert finding_of("certificates", what).result is Severity.PROBLEM
    assert finding_of("clock", subject(tmp_path, clock=lambda: NOW)).result is Severity.OK


@pytest.mark.parametrize(
    ("days", "result", "says"),
    [
        (1, "ok", "valid"),
        (1810, "warning", "only"),
        (1830, "problem", "was valid until"),
        (-2, "problem", "valid from"),
    ],
)
def test_certificates_are_looked_at_with_the_boards_clock(
    tmp_path: Path, keys: Path, days: int, result: str, says: str
) -> None:
    what = subject(tmp_path, tls=tls(keys), clock=lambda: NOW + days * 86400)
    assert finding_of("certificates", what).result is Severity(result)
    assert says in finding_of("certificates", what).sentence


def test_an_expiring_trust_document_is_warned_of(tmp_path: Path, keys: Path) -> None:
    assert finding_of("trust", subject(tmp_path, trust=(keys / "release.pub",))).result is Severity.OK
    create_credentials(tmp_path / "own")
    document = trust_issuer.renew(tmp_path / "own", [], 60)
    assert load_trust([document]) is not None
    for days, result in ((1, "ok"), (40, "warning"), (61, "problem")):
        what = subject(tmp_path, trust=(document,), clock=lambda days=days: NOW + days * 86400)
        assert finding_of("trust", what).result is Severity(result)
    assert finding_of("trust", subject(tmp_path, trust=(tmp_path / "none.pub",))).result is Severity.PROBLEM


def test_files_that_do_not_belong_together_or_to_the_board_are_named(tmp_path: Path, keys: Path) -> None:
    good = subject(tmp_path, tls=tls(keys))
    assert finding_of("tls files", good).result is Severity.OK
    wrong = subject(tmp_path, tls=replace(tls(keys), key=keys / "deployer.key"))
    assert "is not the key of the certificate" in finding_of("tls files", wrong).sentence
    assert "ca.key, release.key, root.key, deployer.key" in finding_of("secrets", good).sentence


def test_a_board_without_certificate_or_key_is_told_what_it_lacks(tmp_path: Path) -> None:
    bare = subject(tmp_path)
    assert "No certificate is configured" in finding_of("tls files", bare).sentence
    assert "refuse every push" in finding_of("trust", bare).sentence


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path, keys: Path) -> None:
    absent = subject(tmp_path, tls=replace(tls(keys), certificate=tmp_path / "agent.pem"))
    assert finding_of("certificates", absent).sentence.endswith(
        "agent.pem can't be read: No such file or directory."
    )


def test_a_key_that_others_can_read_is_warned_of(tmp_path: Path, keys: Path) -> None:
    key = tmp_path / "agent.key"
    key.write_bytes((keys / "agent.key").read_bytes())
    key.chmod(0o644)
    what = subject(tmp_path, tls=replace(tls(keys), key=key))
    assert "mode 0644" in finding_of("key mode", what).sentence
    key.chmod(0o600)
    assert finding_of("key mode", what).result is Severity.OK
    assert finding_of("secrets", what).result is Severity.OK
