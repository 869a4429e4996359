"""The credentials folder: keys, certificates, and whom boards trust."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgewright.errors import EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.trust.document import Revocation, TrustDocument
from edgewright_agent.trust.board_trust import DOCUMENTS_MAX
from edgewright_builder.artifact.artifact import Artifact, resign_artifact
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.messages import from_message
from edgewright_builder.keys import trust_issuer
from edgewright_builder.keys.credentials import Written, create_credentials, issue_certificate
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.keys.revocations import revocation_of
from edgewright_builder.python_api.arguments import as_path
from edgewright_builder.python_api.board_arguments import artifact_folder
from edgewright_builder.python_api.loop import SHARED
from edgewright_builder.python_api.results.trust import (
    BoardTrust,
    TrustStatement,
    TrustUpdate,
    UntrustedRelease,
)

BOARDS_AT_ONCE = 16
Keys = Sequence[str | Path]


@dataclass(frozen=True)
class Credentials:
    """A folder of keys and certificates, as `edgewright keys create` writes it.

    Changes of trust are signed by `root_keys`, key files; none means `root.key` of the folder. Each change writes the
    next `trust-N.json`, which boards learn by `tell`.
    """

    folder: Path

    @classmethod
    def create(cls, folder: str | Path, hosts: Sequence[str] = (), *, force: bool = False) -> Credentials:
        """Writes a release key, a root key, an authority, and certificates for boards and their clients.

        `hosts` are names or addresses at which boards are reached. Raises RefusedError where the folder holds keys
        already; `force` begins anew and moves these aside.
        """
        credentials = cls(as_path(folder, "the credentials folder"))
        credentials.write(hosts, force=force)
        return credentials

    def write(self, hosts: Sequence[str] = (), *, force: bool = False) -> Written:
        """Does the same in this folder. Returns what was written. Raises as `create`."""
        return create_credentials(self.folder, _hosts(hosts), force=force)

    def certificate(
        self, role: Literal["agent", "deployer", "observer"] = "agent", hosts: Sequence[str] = ()
    ) -> Written:
        """Writes one more certificate with its key; one of the same name is moved aside. Raises as `create`."""
        return issue_certificate(self.folder, role, _hosts(hosts))

    def trust(self) -> TrustStatement:
        """Returns whom boards of this folder trust. Raises InputError if the document is missing or damaged."""
        trust_issuer.begin(self.folder)
        return TrustStatement(self.folder, trust_issuer.newest(self.folder))

    def add_keys(
        self,
        role: Literal["release", "root"],
        added: Keys = (),
        *,
        threshold: int | None = None,
        root_keys: Keys = (),
    ) -> Path:
        """Trusts more keys (`*.pub`), or wants another number of signatures; returns the new document."""
        _require_role(role)
        if threshold is not None and (not isinstance(threshold, int) or threshold < 1):
            raise InputError(f"The threshold is {threshold!r}; give how many keys must sign, at least 1.")
        return trust_issuer.add_keys(self.folder, _paths(root_keys), role, _paths(added), threshold)

    def renew(self, days: float | None, *, root_keys: Keys = ()) -> Path:
        """Renews the trust document for so many days from now; None: for ever. Returns the new document."""
        return trust_issuer.renew(self.folder, _paths(root_keys), days)

    def rotate(
        self, role: Literal["release", "root"] = "release", *, root_keys: Keys = ()
    ) -> tuple[str, Path]:
        """Makes a new key of the role; returns the old key's id and the new document.

        An old release key stays trusted until it is revoked.
        """
        _require_role(role)
        rotate = trust_issuer.rotate_root_key if role == "root" else trust_issuer.rotate_release_key
        return rotate(self.folder, _paths(root_keys))

    def revoke(
        self, what: str | Path, *, stop: bool = False, reason: str = "", root_keys: Keys = ()
    ) -> tuple[Revocation, Path]:
        """Revokes a key, a certificate or a release, by its file or id; returns the revocation and the new document.

        What serves goes on serving, unless `stop`.
        """
        trust_issuer.begin(self.folder)
        revocation = revocation_of(self.folder, str(what), stop=stop, reason=reason)
        return revocation, trust_issuer.revoke(self.folder, _paths(root_keys), revocation)

    def sign(self, artifact: str | Path | Artifact) -> Artifact:
        """Adds the folder's release key to an artifact's signatures, and returns it."""
        return resign_artifact(artifact_folder(artifact), load_signing_key(self.folder / "release.key"))

    def tell(self, hosts: Sequence[str], *, insecure: bool = False) -> TrustUpdate:
        """Gives boards, `HOST:PORT` each, the newest trust document. A board that fails is in the result."""
        return SHARED.run(tell_boards(self.folder, _hosts(hosts), insecure=insecure))


async def tell_boards(folder: Path, hosts: Iterable[str], *, insecure: bool) -> TrustUpdate:
    """Gives boards the documents of a folder, several at once."""
    trust_issuer.begin(folder)
    newest = trust_issuer.newest(folder)
    gate = asyncio.Semaphore(BOARDS_AT_ONCE)

    async def tell(host: str) -> BoardTrust:
        async with gate:
            try:
                return await _tell(folder, host, newest, insecure=insecure)
            except EdgewrightError as error:
                return BoardTrust(host, error=str(error))

    return TrustUpdate(tuple(await asyncio.gather(*map(tell, hosts))))


async def _tell(folder: Path, host: str, newest: TrustDocument, *, insecure: bool) -> BoardTrust:
    async with DeviceClient(parse_address(host), None if insecure else folder) as client:
        before = await client.get_trust()
        if before.version > newest.version:
            message = (
                f"it has trust document {before.version}, this folder only {newest.version}: somebody changed "
                "it elsewhere, get their folder"
            )
            raise RefusedError(message)
        if before.version == newest.version and before.problem:
            raise RefusedError(before.problem)
        version, withdrawn = before.version, before.withdrawn
        chain = trust_issuer.documents(folder, before.version)
        for first in range(0, len(chain), DOCUMENTS_MAX):
            after = await client.update_trust(chain[first : first + DOCUMENTS_MAX])
            version, withdrawn = after.version, after.withdrawn
        if version != newest.version:
            raise OutsideError(
                f"it took the documents up to {newest.version} and says that {version} is in force; see the agent's log"
            )
        releases = tuple(from_message(UntrustedRelease, each) for each in withdrawn)
        return BoardTrust(host, version, before.version, releases)


def _require_role(role: str) -> None:
    if role not in ("release", "root"):
        raise InputError(f"{role!r} is no role of a signing key; give release or root.")


def _hosts(hosts: Sequence[str]) -> Sequence[str]:
    if isinstance(hosts, str):
        raise InputError(f"The hosts are a list of names; give [{hosts!r}].")
    return hosts


def _paths(files: Keys) -> list[Path]:
    return [as_path(file, "a key") for file in files]
