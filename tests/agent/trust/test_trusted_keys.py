"""What `--trust` takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgewright.errors import InputError
from edgewright.trust.document import TrustDocument, pinned
from edgewright.trust.keys import load_trust
from tests.agent.trust.judging import STRANGER
from tests.support.artifacts import RELEASE_KEY
from tests.support.trust_documents import (
    document,
    sign,
    signed,
)


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
