"""Which releases may run by the document in force."""

from __future__ import annotations

import json

import pytest

from edgewright.errors import RefusedError
from edgewright.trust.accepted_signatures import revocation_of
from edgewright_agent.trust import Trust
from tests.agent.trust.judging import BOTH, check, reason_of
from tests.support.artifacts import RELEASE_KEY, make_artifact
from tests.support.artifacts import sign as sign_artifact
from tests.support.trust_documents import (
    NEW_RELEASE,
    document,
    revocation,
    signed,
    signers,
)


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
