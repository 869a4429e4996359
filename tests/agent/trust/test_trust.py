"""Whose releases a board runs: the chain of documents, revocation, expiry, and what is on the disk."""

from __future__ import annotations

import errno
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from edgewright.dsse import encode_envelope, key_id
from edgewright.durable import FileSystem
from edgewright.errors import EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.trust.document import TRUST_PAYLOAD_TYPE, TrustDocument, pinned
from edgewright.trust.keys import load_trust
from edgewright.trust.rules import follow, read_signed, revocation_of, successor
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.trust import Trust
from edgewright_agent.trust.clock import MonotoneClock
from tests.support.artifacts import RELEASE_KEY, TestArtifact, make_artifact
from tests.support.artifacts import sign as sign_artifact
from tests.support.trust_documents import (
    ISSUED,
    NEW_RELEASE,
    NEW_ROOT,
    ROOT,
    document,
    revocation,
    sign,
    signed,
    signers,
)

STRANGER = Ed25519PrivateKey.generate()
BOTH = signers(RELEASE_KEY, NEW_RELEASE)


def reason_of(error: pytest.ExceptionInfo[EdgewrightError]) -> str:
    return Reason.Name(error.value.reason).removeprefix("REASON_")


def check(trust: Trust, artifact: TestArtifact) -> None:
    trust.check_release(artifact.manifest_bytes, artifact.envelope)


# The chain


def test_a_document_that_the_root_key_signed_follows() -> None:
    assert successor(document(1), signed(2)).version == 2


@pytest.mark.parametrize("version", [1, 2])
def test_trust_never_goes_back(version: int) -> None:
    with pytest.raises(RefusedError, match="trust never goes back") as error:
        successor(document(2), signed(version))
    assert reason_of(error) == "TRUST_STALE"


@pytest.mark.parametrize("keys", [[STRANGER], [NEW_ROOT], [RELEASE_KEY]])
def test_a_new_root_that_the_old_one_did_not_sign_is_refused(keys: list[Ed25519PrivateKey]) -> None:
    with pytest.raises(RefusedError) as error:
        successor(document(1), signed(2, keys, root=signers(keys[0])))
    assert reason_of(error) == "KEY_UNTRUSTED"


def test_a_new_root_that_has_not_signed_itself_is_refused() -> None:
    with pytest.raises(RefusedError, match="its own root keys"):
        successor(document(1), signed(2, [ROOT], root=signers(NEW_ROOT)))


def test_the_root_rotates_when_old_and_new_sign_and_the_old_is_out() -> None:
    second = successor(document(1), signed(2, [ROOT, NEW_ROOT], root=signers(NEW_ROOT)))
    with pytest.raises(RefusedError) as error:
        successor(second, signed(3, [ROOT]))
    assert reason_of(error) == "KEY_UNTRUSTED"
    assert successor(second, signed(3, [NEW_ROOT], root=signers(NEW_ROOT))).version == 3


@pytest.mark.parametrize(("keys", "enough"), [([ROOT], False), ([ROOT, NEW_ROOT], True)])
def test_a_threshold_of_two_takes_two(keys: list[Ed25519PrivateKey], enough: bool) -> None:
    root = signers(ROOT, NEW_ROOT, threshold=2)
    if enough:
        assert successor(document(1, root=root), signed(2, keys, root=root)).version == 2
        return
    with pytest.raises(RefusedError) as error:
        successor(document(1, root=root), signed(2, keys, root=root))
    assert reason_of(error) == "KEY_UNTRUSTED"


def test_a_board_that_missed_some_takes_up_the_whole_chain() -> None:
    root = signers(NEW_ROOT)
    chain = [signed(1), signed(2, [ROOT, NEW_ROOT], root=root), signed(3, [NEW_ROOT], root=root)]
    assert follow(document(1), chain)[0].version == 3
    with pytest.raises(RefusedError) as error:
        follow(document(1), [chain[2]])  # without the link in between
    assert reason_of(error) == "KEY_UNTRUSTED"
    with pytest.raises(RefusedError) as error:
        follow(document(3), chain)
    assert reason_of(error) == "TRUST_STALE"


def test_a_board_started_with_a_bare_key_follows_what_that_key_signed() -> None:
    base = pinned((RELEASE_KEY.public_key(),))
    assert successor(base, signed(1, [ROOT, RELEASE_KEY])).version == 1
    with pytest.raises(RefusedError) as error:
        successor(base, signed(1, [ROOT]))
    assert reason_of(error) == "KEY_UNTRUSTED"


@pytest.mark.parametrize(
    "fields",
    [
        {"release": {"threshold": 2, "keys": ["ab" * 32]}},
        {"release": {"keys": []}},
        {"release": {"keys": ["ab" * 32, "ab" * 32]}},
        {"release": {"keys": ["short"]}},
        {"revoked": [revocation()]},  # nobody would be left to sign
        {"expires": ISSUED - timedelta(days=1)},
        {"issued": "2026-11-01T00:00:00"},  # in which time zone?
        {"surprise": 1},
        {"version": -1},
    ],
)
def test_a_document_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    plain = {**json.loads(document(2).to_bytes()), **json.loads(json.dumps(fields, default=str))}
    payload = json.dumps(plain).encode()
    with pytest.raises(InputError) as error:
        read_signed(encode_envelope(payload, {"k": b"s"}, TRUST_PAYLOAD_TYPE))
    assert reason_of(error) == "TRUST_INVALID"


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_trust_document(data: bytes) -> None:
    with pytest.raises(InputError):
        read_signed(data)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_flipped_bit_of_a_trust_document_is_detected(data: st.DataObject) -> None:
    content = bytearray(signed(2))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((InputError, RefusedError)):
        successor(document(1), bytes(content))


def test_a_manifests_signature_is_none_of_a_trust_document() -> None:
    payload = document(2).to_bytes()
    envelope = encode_envelope(payload, {key_id(ROOT.public_key()): ROOT.sign(payload)})
    with pytest.raises(InputError) as error:
        read_signed(envelope)
    assert reason_of(error) == "SIGNATURE_INVALID"


def test_securesystemslib_agrees_on_who_signed_a_trust_document() -> None:
    envelope = Envelope.from_dict(json.loads(signed(2)))
    key = SSlibKey.from_crypto(ROOT.public_key(), keyid=key_id(ROOT.public_key()))
    assert list(envelope.verify([key], 1)) == [key.keyid]
    theirs = Envelope(document(3).to_bytes(), TRUST_PAYLOAD_TYPE, {})
    theirs.sign(CryptoSigner(ROOT, key))
    signatures = {name: bytes.fromhex(each.signature) for name, each in theirs.signatures.items()}
    data = encode_envelope(document(3).to_bytes(), signatures, TRUST_PAYLOAD_TYPE)
    assert successor(document(2), data).version == 3


# Releases


def test_a_release_of_a_revoked_key_is_refused_with_the_reason() -> None:
    trust = Trust(document(release=BOTH, revoked=[revocation(reason="laptop stolen")]))
    with pytest.raises(RefusedError, match=r"its key .* was revoked \(laptop stolen\)") as error:
        check(trust, make_artifact())
    assert reason_of(error) == "REVOKED"
    check(trust, make_artifact(key=NEW_RELEASE))


def test_a_revoked_release_is_refused_though_its_key_is_good() -> None:
    artifact, other = make_artifact(), make_artifact(version="2.0")
    trust = Trust(document(revoked=[{"kind": "release", "sha256": artifact.digest}]))
    with pytest.raises(RefusedError) as error:
        check(trust, artifact)
    assert reason_of(error) == "REVOKED"
    check(trust, other)


def test_a_second_good_signature_outweighs_a_revoked_one() -> None:
    artifact = make_artifact()
    other = sign_artifact(artifact.manifest, artifact.contents, NEW_RELEASE)
    rows = [json.loads(each.envelope)["signatures"][0] for each in (artifact, other)]
    envelope = json.loads(artifact.envelope) | {"signatures": sorted(rows, key=lambda row: row["keyid"])}
    data = (json.dumps(envelope, indent=2, sort_keys=True) + "\n").encode()
    trust = document(release=BOTH, revoked=[revocation()])
    assert revocation_of(trust, artifact.digest, artifact.manifest_bytes, data) is None
    Trust(trust).check_release(artifact.manifest_bytes, data)
    assert revocation_of(trust, artifact.digest, artifact.manifest_bytes, artifact.envelope) is not None


def test_a_threshold_of_two_release_keys_takes_two() -> None:
    trust = Trust(document(release=signers(RELEASE_KEY, NEW_RELEASE, threshold=2)))
    with pytest.raises(RefusedError, match="2 of which must sign") as error:
        check(trust, make_artifact())
    assert reason_of(error) == "KEY_UNTRUSTED"


def test_a_board_without_keys_trusts_nobody() -> None:
    trust = Trust(None)
    for call in (lambda: check(trust, make_artifact()), lambda: trust.update([signed(1)])):
        with pytest.raises(RefusedError, match="--trust") as error:
            call()
        assert reason_of(error) == "KEY_UNTRUSTED"


# Expiry


def at(days: float) -> float:
    return (ISSUED + timedelta(days=days)).timestamp()


def test_an_expired_document_stages_nothing_until_it_is_renewed(tmp_path: Path) -> None:
    now = at(29)
    trust = Trust(document(1, expires=ISSUED + timedelta(days=30)), tmp_path, clock=lambda: now)
    check(trust, make_artifact())
    now = at(31)
    with pytest.raises(RefusedError, match=r"expired on 2026-12-01.*Renew it") as error:
        check(trust, make_artifact())
    assert reason_of(error) == "TRUST_EXPIRED"
    trust.update([signed(2, issued=ISSUED + timedelta(days=31), expires=ISSUED + timedelta(days=60))])
    check(trust, make_artifact())


def test_a_clock_set_back_does_not_revive_an_expired_document(tmp_path: Path) -> None:
    now = at(31)
    base = document(1, expires=ISSUED + timedelta(days=30))
    assert "expired" in Trust(base, tmp_path, clock=lambda: now).problem
    now = at(1)
    assert "expired" in Trust(base, tmp_path, clock=lambda: now).problem  # also after a restart


def test_a_clock_that_once_ran_ahead_is_repaired_by_the_next_document(tmp_path: Path) -> None:
    now = at(5000)
    trust = Trust(document(1, expires=ISSUED + timedelta(days=30)), tmp_path, clock=lambda: now)
    assert "expired" in trust.problem
    now = at(2)
    trust.update([signed(2, issued=ISSUED + timedelta(days=2), expires=ISSUED + timedelta(days=30))])
    assert trust.problem == ""
    assert trust.now() == ISSUED + timedelta(days=2)


@given(st.lists(st.floats(0, 2e9), min_size=1, max_size=30))
def test_the_clock_never_runs_backwards(times: list[float]) -> None:
    ticks = iter(times)
    clock = MonotoneClock(FileSystem(), None, lambda: next(ticks))
    seen: list[datetime] = [clock.now() for _ in times]
    assert seen == sorted(seen)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"9" * 400])
def test_a_damaged_clock_file_stops_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clock").write_bytes(content)
    assert MonotoneClock(FileSystem(), tmp_path / "clock", lambda: 1.8e9).now().year >= 2027


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_of_the_clock_file_does_not_set_the_clock(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "clock"
    path.unlink(missing_ok=True)
    MonotoneClock(FileSystem(), path, lambda: 1.9e9).now()
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert MonotoneClock(FileSystem(), path, lambda: 1.8e9).now().timestamp() == 1.9e9
    path.write_bytes(content)
    assert MonotoneClock(FileSystem(), path, lambda: 1.8e9).now().timestamp() == 1.8e9


class Disk(FileSystem):
    """Takes no writes as long as there is an `error`."""

    error = 0

    def create(self, path: Path) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return super().create(path)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_no_writes_stops_no_clock_and_the_time_is_written_once_it_does(
    tmp_path: Path, error: int
) -> None:
    now, disk = at(1), Disk()
    trust = Trust(document(1, expires=ISSUED + timedelta(days=30)), tmp_path, fs=disk, clock=lambda: now)
    trust.now()
    now, disk.error = at(31), error
    assert trust.now() == ISSUED + timedelta(days=31)
    assert "expired" in trust.problem
    disk.error = 0
    trust.now()
    now = at(1)
    assert "expired" in Trust(trust.document, tmp_path, clock=lambda: now).problem


def test_a_clock_that_a_document_set_back_on_a_full_disk_is_written_later(tmp_path: Path) -> None:
    now, disk = at(5000), Disk()
    clock = MonotoneClock(disk, tmp_path / "clock", lambda: now)
    clock.now()
    now, disk.error = at(2), errno.ENOSPC
    clock.reset(ISSUED)
    assert clock.now() == ISSUED + timedelta(days=2)
    disk.error = 0
    clock.now()
    assert MonotoneClock(disk, tmp_path / "clock", lambda: now).now() == ISSUED + timedelta(days=2)


# On the disk


def test_an_accepted_document_survives_a_restart(tmp_path: Path) -> None:
    Trust(document(1), tmp_path).update([signed(2, release=BOTH, revoked=[revocation()])])
    again = Trust(document(1), tmp_path)
    assert again.document is not None
    assert again.document.version == 2
    with pytest.raises(RefusedError):
        check(again, make_artifact())


def test_a_newer_document_given_at_the_start_counts_and_an_older_one_does_not(tmp_path: Path) -> None:
    Trust(document(1), tmp_path).update([signed(3)])
    found = [Trust(document(version), tmp_path).document for version in (2, 4)]
    assert [each.version for each in found if each is not None] == [3, 4]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_document_damaged_on_the_disk_never_makes_an_older_one_count(
    tmp_path: Path, data: st.DataObject
) -> None:
    newer = signed(2, release=BOTH, revoked=[revocation()])
    path = tmp_path / "00000002.json"
    Trust(document(1), tmp_path / "fresh")
    tmp_path.joinpath("clock").unlink(missing_ok=True)
    content = bytearray(newer)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    trust = Trust(document(1), tmp_path)
    assert "damaged" in trust.problem
    with pytest.raises(RefusedError):
        check(trust, make_artifact())  # which version 1 would let pass
    assert trust.update([newer]).version == 2
    check(trust, make_artifact(key=NEW_RELEASE))


def test_a_damaged_document_is_not_mended_by_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "00000005.json").write_bytes(b"{}")
    with pytest.raises(RefusedError, match="had 5 before it was damaged"):
        Trust(document(1), tmp_path).update([signed(2), signed(4)])


def test_a_document_that_the_disk_has_no_room_for_is_in_force_and_is_kept_when_it_is_sent_again(
    tmp_path: Path,
) -> None:
    disk, revoking = Disk(), signed(2, release=BOTH, revoked=[revocation()])
    trust = Trust(document(1), tmp_path, fs=disk)
    disk.error = errno.ENOSPC
    for _ in range(2):
        with pytest.raises(
            OutsideError, match=r"in force but could not be kept.*Then send it again"
        ) as error:
            trust.update([revoking])
        assert reason_of(error) == "DISK_SPACE"
        assert trust.document is not None
        assert trust.document.version == 2
        assert "could not be kept" in trust.problem
        with pytest.raises(OutsideError, match="could not be kept"):
            check(trust, make_artifact(key=NEW_RELEASE))
    disk.error = 0
    with pytest.raises(RefusedError, match="trust never goes back"):
        trust.update([signed(2, release=BOTH)])
    assert trust.update([revoking]).version == 2
    again = Trust(document(1), tmp_path).document
    assert again == trust.document
    with pytest.raises(RefusedError, match="trust never goes back"):
        trust.update([revoking])


def test_a_document_that_was_not_kept_is_followed_by_a_newer_one_and_kept_by_itself_once_there_is_room(
    tmp_path: Path,
) -> None:
    disk = Disk()
    trust = Trust(document(1), tmp_path, fs=disk)
    disk.error = errno.EROFS
    for version in (2, 3):
        with pytest.raises(OutsideError, match="could not be kept"):
            trust.update([signed(version)])
    disk.error = 0
    assert trust.problem == ""  # which `edgewright keys trust` asks for first
    again = Trust(document(1), tmp_path).document
    assert again is not None
    assert again.version == 3


class PowerCutError(Exception):
    pass


class CutFileSystem(FileSystem):
    """Loses power before the n-th call that changes the disk."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def _spend(self) -> None:
        if self.left == 0:
            raise PowerCutError
        self.left -= 1

    def write(self, file: int, data: Any, offset: int) -> None:
        self._spend()
        super().write(file, data, offset)

    def rename(self, source: Path, target: Path) -> None:
        self._spend()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._spend()
        super().unlink(path)


@pytest.mark.parametrize("calls", range(8))
def test_a_power_cut_during_an_update_leaves_the_old_document_or_the_new(tmp_path: Path, calls: int) -> None:
    Trust(document(1), tmp_path).update([signed(2)])
    trust = Trust(document(1), tmp_path, fs=CutFileSystem(calls))
    try:
        trust.update([signed(3)])
    except PowerCutError:
        pass
    else:
        assert calls > 3, "the cut came never: the test tests nothing"
    again = Trust(document(1), tmp_path)
    assert again.problem == ""
    assert again.document is not None
    assert again.document.version in (2, 3)


# What `--trust` takes


@pytest.fixture
def public_key(tmp_path: Path) -> Path:
    path = tmp_path / "release.pub"
    path.write_bytes(RELEASE_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_trust_is_a_key_a_folder_of_keys_or_a_document(tmp_path: Path, public_key: Path) -> None:
    (tmp_path / "trust-3.json").write_bytes(signed(3))
    expected: list[TrustDocument] = [pinned((RELEASE_KEY.public_key(),))] * 2 + [document(3)]
    assert [load_trust([path]) for path in (public_key, tmp_path, tmp_path / "trust-3.json")] == expected
    assert load_trust([]) is None
    assert load_trust([public_key, public_key]) == expected[0]


def test_what_can_not_be_trusted_is_named(tmp_path: Path, public_key: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "trust-1.json").write_bytes(sign(document(1), [STRANGER]))
    for paths, says in (
        ([tmp_path / "empty"], "holds no public key"),
        ([tmp_path / "trust-1.json"], "trust-1.json is no trust document to start from: .* must sign"),
        ([tmp_path / "trust-9.json"], "trust-9.json can't be read"),
        ([tmp_path / "trust-1.json", public_key], "not both"),
    ):
        with pytest.raises(InputError, match=says):
            load_trust(paths)
