"""What the tests of trust share: keys, a full disk, days after the issue, and asking whether a release may run."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright.durable import FileSystem
from edgewright.errors import EdgewrightError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.trust import Trust
from tests.support.artifacts import RELEASE_KEY, TestArtifact
from tests.support.trust_documents import (
    ISSUED,
    NEW_RELEASE,
    signers,
)

STRANGER = Ed25519PrivateKey.generate()
BOTH = signers(RELEASE_KEY, NEW_RELEASE)


def reason_of(error: pytest.ExceptionInfo[EdgewrightError]) -> str:
    return Reason.Name(error.value.reason).removeprefix("REASON_")


def check(trust: Trust, artifact: TestArtifact) -> None:
    trust.check_release(artifact.manifest_bytes, artifact.envelope)


def at(days: float) -> float:
    return (ISSUED + timedelta(days=days)).timestamp()


class Disk(FileSystem):
    """Takes no writes as long as there is an `error`."""

    error = 0

    def create(self, path: Path) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return super().create(path)
