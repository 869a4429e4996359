"""Trust moves forward only: which document may follow which."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from edgewright.dsse import encode_envelope, key_id
from edgewright.errors import InputError, RefusedError
from edgewright.trust.accepted_signatures import follow, read_signed, successor
from edgewright.trust.document import TRUST_PAYLOAD_TYPE, pinned
from tests.agent.trust.judging import STRANGER, reason_of
from tests.support.artifacts import RELEASE_KEY
from tests.support.trust_documents import (
    ISSUED,
    NEW_ROOT,
    ROOT,
    document,
    revocation,
    signed,
    signers,
)


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
