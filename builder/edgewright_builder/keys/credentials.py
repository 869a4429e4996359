"""The credentials folder: a release key, a certificate authority of one's own, and certificates with roles.

ca.pem ca.key            signs the certificates below; keep ca.key off the boards
agent.pem agent.key      the boards': serves localhost, 127.0.0.1 and the hosts named
agent-NAME.pem agent-NAME.key    of one board, made later by `issue_certificate`
deployer.pem deployer.key, observer.pem observer.key     the host's, with the role as a URI name
release.key release.pub  Ed25519, signs artifacts; boards trust release.pub
root.key root.pub        Ed25519, signs trust documents; best kept offline
trust-1.json …           who may sign artifacts and what is revoked, see `trust_issuer`
replaced-TIME/           what was in the place of newer files; nothing here is ever overwritten
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright.folders import refuse_file
from edgewright_builder.keys import trust_issuer
from edgewright_builder.keys.certificates import agent_pair, client_pair, load_authority, new_authority
from edgewright_builder.keys.key_files import move_aside, private_pem, public_pem, write_private

ROLES = ("deployer", "observer")
NAME_CHARACTERS = (
    200  # of a host in a file's name; a host may have 253, and file systems take 255 with the rest
)
AGENT = "agent"  # the role of boards
# What a folder may hold of the keys it was made with.
OURS = re.compile(r"(ca|agent|deployer|observer|release|root)(-.+)?\.(key|pem|pub)|trust-\d+\.json")


@dataclass(frozen=True)
class Written:
    """What was written, and the folder to which went what was there before."""

    files: list[Path]
    aside: Path | None  # None: nothing was there


def create_credentials(folder: Path, hosts: Sequence[str] = (), *, force: bool = False) -> Written:
    """Writes the folder described above, each file with mode 0600.

    What the folder holds of other keys is moved aside if `force` is set, and RefusedError raised if it is not.
    Raises InputError for a malformed host name or a file in the folder's place.
    """
    refuse_file(folder)
    ca = new_authority()
    contents = {"ca.key": private_pem(ca.key), "ca.pem": ca.certificate.public_bytes(Encoding.PEM)}
    contents |= agent_pair(ca, AGENT, hosts)
    for role in ROLES:
        contents |= client_pair(ca, role)
    release_key, root_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    for name, pair in (("release", release_key), ("root", root_key)):
        contents |= {f"{name}.key": private_pem(pair), f"{name}.pub": public_pem(pair)}
    contents["trust-1.json"] = trust_issuer.first_document(root_key, release_key)
    existing = sorted(path for path in folder.glob("*") if OURS.fullmatch(path.name))
    if existing and not force:
        raise _already_held(folder, existing)
    return _write_all(folder, contents, existing)


def issue_certificate(folder: Path, role: str, hosts: Sequence[str] = ()) -> Written:
    """One more certificate of the folder's authority, with its key: `agent-NAME.pem` of the board whose first host
    is NAME, or `deployer.pem`, `observer.pem`. One of the same name is moved aside.

    Raises InputError for hosts that don't fit the role or an authority that can't be read, RefusedError for one
    that has expired.
    """
    if bool(hosts) != (role == AGENT):
        expected = "needs the --host it is reached at" if role == AGENT else "takes no --host"
        raise InputError(f"A certificate for the role {role} {expected}.")
    ca = load_authority(folder)
    contents = (
        agent_pair(ca, f"{AGENT}-{hosts[0][:NAME_CHARACTERS]}", hosts) if hosts else client_pair(ca, role)
    )
    return _write_all(folder, contents, [folder / name for name in contents])


def _already_held(folder: Path, existing: Sequence[Path]) -> RefusedError:
    others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
    return RefusedError(
        f"{folder} already holds {existing[-1].name}{others}, which boards may trust. For one more certificate, or a "
        f"newer one: `edgewright keys certificate {folder} --host NAME`. --force begins anew, with keys that no board "
        "trusts yet, and moves these aside."
    )


def _write_all(folder: Path, contents: dict[str, bytes], replaced: Iterable[Path]) -> Written:
    """Moves `replaced` aside as far as it exists, then writes the files."""
    paths = [folder / name for name in sorted(contents)]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = move_aside(folder, replaced)
        for path in paths:
            write_private(path, contents[path.name])
    except OSError as error:
        raise OutsideError(
            f"{folder} can't be written ({error.strerror}). Check the disk, or choose another folder."
        ) from error
    return Written(paths, aside)
