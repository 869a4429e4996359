"""TrustService: messages in, messages out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc.aio

from edgewright.dsse import key_id
from edgewright.trust.accepted_signatures import RevocationVerdict
from edgewright.trust.document import Revocation, RevokedKind, SignerSet, TrustDocument
from edgewright.v1 import trust_pb2, trust_pb2_grpc
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.revocation import revoked_releases
from edgewright_agent.runtime.threads import run_in_thread, to_the_end
from edgewright_agent.store import Store
from edgewright_agent.trust import Trust

Context = grpc.aio.ServicerContext[Any, Any]

_KINDS: dict[RevokedKind, trust_pb2.RevokedKind.ValueType] = {
    "key": trust_pb2.REVOKED_KIND_KEY,
    "release": trust_pb2.REVOKED_KIND_RELEASE,
    "certificate": trust_pb2.REVOKED_KIND_CERTIFICATE,
}


class TrustService(trust_pb2_grpc.TrustServiceServicer):
    """See `trust.proto` for what each call promises."""

    def __init__(self, trust: Trust, store: Store, deployer: Deployer) -> None:
        self._trust = trust
        self._store = store
        self._deployer = deployer

    async def GetTrust(  # noqa: N802
        self, request: trust_pb2.GetTrustRequest, context: Context
    ) -> trust_pb2.GetTrustResponse:
        """Returns the document in force."""
        withdrawn = await run_in_thread(revoked_releases, self._trust, self._store.releases())
        response = trust_pb2.GetTrustResponse(problem=self._trust.problem)
        if self._trust.document is not None:
            _fill(response, self._trust.document)
            expires = self._trust.document.expires
            response.expired = expires is not None and self._trust.now() >= expires
        response.withdrawn.extend(_withdrawn_to(withdrawn.values(), self._deployer.state.active))
        return response

    async def UpdateTrust(  # noqa: N802
        self, request: trust_pb2.UpdateTrustRequest, context: Context
    ) -> trust_pb2.UpdateTrustResponse:
        """Accepts newer documents, and stops what they say must stop."""
        return await to_the_end(self._update(list(request.documents)))

    async def _update(self, documents: list[bytes]) -> trust_pb2.UpdateTrustResponse:
        active = self._deployer.state.active  # as it was until now
        try:
            document = await run_in_thread(self._trust.update, documents)
        finally:  # what is in force is obeyed, also where it had come before or an error came after it
            withdrawn = await run_in_thread(revoked_releases, self._trust, self._store.releases())
            await self._deployer.stop_revoked({digest for digest, found in withdrawn.items() if found.stop})
        response = trust_pb2.UpdateTrustResponse(version=document.version)
        response.withdrawn.extend(_withdrawn_to(withdrawn.values(), active))
        return response


def _withdrawn_to(
    withdrawn: Iterable[RevocationVerdict], active: str | None
) -> list[trust_pb2.WithdrawnRelease]:
    return [
        trust_pb2.WithdrawnRelease(
            release=bytes.fromhex(each.digest),
            stop=each.stop,
            active=each.digest == active,
            reason=each.reason,
        )
        for each in withdrawn
    ]


def _fill(response: trust_pb2.GetTrustResponse, document: TrustDocument) -> None:
    response.version = document.version
    response.root.CopyFrom(_signers_to(document.root))
    response.release.CopyFrom(_signers_to(document.release))
    response.issued = f"{document.issued:%Y-%m-%dT%H:%M:%SZ}" if document.version else ""
    response.expires = f"{document.expires:%Y-%m-%dT%H:%M:%SZ}" if document.expires else ""
    response.revoked.extend(_revocation_to(each) for each in document.revoked)


def _signers_to(signers: SignerSet) -> trust_pb2.SignerSet:
    key_ids = [bytes.fromhex(key_id(key)) for key in signers.public_keys()]
    return trust_pb2.SignerSet(threshold=signers.threshold, key_ids=key_ids)


def _revocation_to(each: Revocation) -> trust_pb2.Revocation:
    return trust_pb2.Revocation(
        kind=_KINDS[each.kind], sha256=bytes.fromhex(each.sha256), stop=each.stop, reason=each.reason
    )
