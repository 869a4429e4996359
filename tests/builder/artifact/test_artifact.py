from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from edgewright.dsse import PAYLOAD_TYPE, encode_envelope, key_id, pae, verify_envelope
from edgewright.errors import InputError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.artifact.artifact import (
    Artifact,
    open_artifact,
    resign_artifact,
    verify_artifact,
    write_artifact,
)
from tests.support.built_artifacts import FIELDS, KEY, make_artifact

CONTENTS = {
    "engine/model.bin": bytes(range(256)) * 40,
    "tokenizer/tokenizer.json": b"{}",
    "engine/empty": b"",
}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path / "artifact", CONTENTS, KEY)


def test_an_artifact_holds_its_files_and_verifies(artifact: Artifact) -> None:
    verified = verify_artifact(artifact.folder, KEY.public_key())
    assert {file.path: artifact.path(file).read_bytes() for file in verified.manifest.files} == CONTENTS
    assert verified.digest == hashlib.sha256((artifact.folder / "manifest.json").read_bytes()).hexdigest()


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, artifact: Artifact) -> None:
    again = make_artifact(tmp_path / "again", dict(reversed(CONTENTS.items())), KEY)
    assert again.manifest_bytes == artifact.manifest_bytes
    assert again.signature_bytes == artifact.signature_bytes


def test_an_artifact_is_replaced_whole(tmp_path: Path, artifact: Artifact) -> None:
    make_artifact(artifact.folder, {"engine/other": b"new"}, KEY)
    assert [file.path for file in verify_artifact(artifact.folder, KEY.public_key()).manifest.files] == [
        "engine/other"
    ]
    assert not (artifact.folder / "tokenizer").exists()
    assert not list(tmp_path.glob("artifact.*"))


def test_a_failed_write_keeps_the_old_artifact(tmp_path: Path, artifact: Artifact) -> None:
    with pytest.raises(InputError, match=r"gone\.bin.*is missing"):
        write_artifact(artifact.folder, {"engine/x": tmp_path / "gone.bin"}, FIELDS, KEY)
    assert verify_artifact(artifact.folder, KEY.public_key()).digest == artifact.digest
    assert not list(tmp_path.glob("artifact.*"))


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="something else than an artifact"):
        make_artifact(tmp_path / "home", CONTENTS, KEY)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_a_field_the_manifest_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"limits\.context_tokens"):
        make_artifact(tmp_path / "artifact", CONTENTS, KEY, limits={"context_tokens": 0})
    assert not (tmp_path / "artifact").exists()


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no artifact: it has no manifest\.json"):
        open_artifact(tmp_path)


def test_the_first_altered_file_is_named(artifact: Artifact) -> None:
    path = artifact.folder / "engine/model.bin"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    with pytest.raises(InputError, match=r"engine/model\.bin .*altered after signing") as caught:
        verify_artifact(artifact.folder, KEY.public_key())
    assert caught.value.reason == Reason.REASON_DIGEST_MISMATCH


def test_a_missing_or_longer_file_is_named(artifact: Artifact) -> None:
    (artifact.folder / "tokenizer/tokenizer.json").write_bytes(b"{} ")
    with pytest.raises(InputError, match=r"tokenizer\.json has 3 bytes, the manifest says 2"):
        verify_artifact(artifact.folder, None)
    (artifact.folder / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        verify_artifact(artifact.folder, None)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_is_detected(tmp_path: Path, artifact: Artifact, data: st.DataObject) -> None:
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(artifact.folder, copy)
    names = ["manifest.json", "manifest.sig", "engine/model.bin", "tokenizer/tokenizer.json"]
    path = copy / data.draw(st.sampled_from(names))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises((InputError, RefusedError)):
        verify_artifact(copy, KEY.public_key())


@pytest.mark.parametrize("changes", [{}, {"version": "2.0"}], ids=["sign", "change again"])
def test_an_artifact_cut_between_manifest_and_signature_is_signed_again(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    replace = Path.replace

    def cut_before_the_signature(path: Path, target: Path) -> Path:
        if target.name == "manifest.sig":
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut_before_the_signature)
        with pytest.raises(KeyboardInterrupt):
            resign_artifact(artifact.folder, KEY, version="2.0")
    with pytest.raises(InputError, match="over another manifest"):
        verify_artifact(artifact.folder, KEY.public_key())
    resign_artifact(artifact.folder, KEY, **changes)
    assert verify_artifact(artifact.folder, KEY.public_key()).manifest.version == "2.0"


def test_a_second_signature_leaves_the_first(artifact: Artifact) -> None:
    second = Ed25519PrivateKey.generate()
    resign_artifact(artifact.folder, second)
    for key in (KEY, second):
        assert verify_artifact(artifact.folder, key.public_key()).digest == artifact.digest


def test_another_key_is_untrusted(artifact: Artifact) -> None:
    with pytest.raises(RefusedError) as caught:
        verify_artifact(artifact.folder, Ed25519PrivateKey.generate().public_key())
    assert caught.value.reason == Reason.REASON_KEY_UNTRUSTED


def test_a_signature_under_a_trusted_name_by_another_key_is_invalid(artifact: Artifact) -> None:
    forged = Ed25519PrivateKey.generate().sign(pae(PAYLOAD_TYPE, artifact.manifest_bytes))
    envelope = encode_envelope(artifact.manifest_bytes, {key_id(KEY.public_key()): forged})
    with pytest.raises(InputError) as caught:
        verify_envelope(artifact.manifest_bytes, envelope, [KEY.public_key()])
    assert caught.value.reason == Reason.REASON_SIGNATURE_INVALID


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"null",
        b'{"payload":"","payloadType":"x","signatures":[]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_envelope_is_invalid(envelope: bytes) -> None:
    with pytest.raises(InputError) as caught:
        verify_envelope(b"", envelope, [KEY.public_key()])
    assert caught.value.reason == Reason.REASON_SIGNATURE_INVALID


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_never_a_valid_envelope(envelope: bytes) -> None:
    with pytest.raises(InputError):
        verify_envelope(b"{}", envelope, [KEY.public_key()])


def test_securesystemslib_verifies_our_envelope(artifact: Artifact) -> None:
    envelope = Envelope.from_dict(json.loads(artifact.signature_bytes))
    key = SSlibKey.from_crypto(KEY.public_key(), keyid=key_id(KEY.public_key()))
    assert envelope.payload == artifact.manifest_bytes
    assert list(envelope.verify([key], 1)) == [key.keyid]


def test_we_verify_securesystemslibs_envelope() -> None:
    public = KEY.public_key()
    envelope = Envelope(b"{}", PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(KEY, SSlibKey.from_crypto(public, keyid=key_id(public))))
    signatures = {keyid: bytes.fromhex(found.signature) for keyid, found in envelope.signatures.items()}
    assert verify_envelope(b"{}", encode_envelope(b"{}", signatures), [public]) is public
