"""The trust documents of a credentials folder: trust-1.json, trust-2.json, …; the newest counts.

Each is signed by the root keys of the one before and by its own, so a board that missed some takes them all
up in order. The first is signed by the release key too: boards started with `--trust release.pub` follow it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from edgewright.dsse import SIGNATURES_MAX, encode_envelope, key_id, pae
from edgewright.errors import EdgewrightError, InputError, RefusedError
from edgewright.trust.accepted_signatures import read_signed
from edgewright.trust.document import (
    TRUST_BYTES_MAX,
    TRUST_PAYLOAD_TYPE,
    Revocation,
    SignerSet,
    TrustDocument,
)
from edgewright.trust.keys import load_public_key
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.keys import key_files

DAYS_MAX = 99_999


def sign_trust(document: TrustDocument, signing_keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """Returns the document in its envelope; the same document and keys give the same bytes."""
    payload = document.to_bytes()
    message = pae(TRUST_PAYLOAD_TYPE, payload)
    signatures = {key_id(key.public_key()): key.sign(message) for key in signing_keys}
    return encode_envelope(payload, signatures, TRUST_PAYLOAD_TYPE)


def first_document(root_key: Ed25519PrivateKey, release_key: Ed25519PrivateKey) -> bytes:
    """Version 1: this root key, this release key, no revocation, no expiry."""
    document = TrustDocument(
        version=1,
        issued=_now(),
        root=SignerSet.of((root_key.public_key(),)),
        release=SignerSet.of((release_key.public_key(),)),
    )
    return sign_trust(document, [root_key, release_key])


def documents(folder: Path, after: int = 0) -> list[bytes]:
    """Returns what brings a board with version `after` up to date, oldest first; empty if nothing does.

    Those that change the root keys, and the newest: the others are signed by root keys that a board has anyway.
    """
    paths = sorted(_paths(folder).items())
    chain = [(version, _read(path).root, path.read_bytes()) for version, path in paths]
    roots_before = [None, *(root for _, root, _ in chain)]
    return [
        data
        for (version, root, data), before in zip(chain, roots_before, strict=False)
        if version > after and (root != before or version == paths[-1][0])
    ]


def newest(folder: Path) -> TrustDocument:
    """Returns the document that counts; raises InputError if there is none or it was altered."""
    paths = _paths(folder)
    if not paths:
        raise InputError(f"{folder} holds no trust document; `edgewright keys create` makes trust-1.json.")
    return _read(paths[max(paths)])


def _read(path: Path) -> TrustDocument:
    try:
        return read_signed(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}).") from None
    except EdgewrightError as error:
        raise InputError(f"{path} is damaged: {error}") from None


def release_key(folder: Path | None) -> Ed25519PublicKey | None:
    """Returns the key an artifact must be signed with, where this machine knows it; the board checks in any case.

    None without a credentials folder or a key in it, and where more than one key may sign, as after a rotation.
    """
    path = folder / "release.pub" if folder is not None else None
    if path is None or not path.exists():
        return None
    if _paths(path.parent) and len(newest(path.parent).release_keys()) > 1:
        return None
    return load_public_key(path)


def change(folder: Path, root_keys: Sequence[Path], **fields: Any) -> Path:
    """Writes the next document: the newest with these fields, signed by the root keys given.

    `root_keys` are files; none means `root.key` of the folder. Raises RefusedError if they are not enough, or
    if too few release keys would be left, InputError for a wrong file or field.
    """
    begin(folder)
    path, data = _following(folder, _signing_keys(folder, root_keys), **fields)
    key_files.write_new(path, data)
    return path


def _following(folder: Path, signing: Sequence[Ed25519PrivateKey], **fields: Any) -> tuple[Path, bytes]:
    """Returns the next document, signed, and the file it belongs in. Writes nothing; raises as `change`."""
    current = newest(folder)
    try:
        following = TrustDocument.model_validate(
            {**current.model_dump(), "version": current.version + 1, "issued": _now(), **fields}
        )
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise RefusedError(f"The trust document can't be changed so: {why}.") from None
    if (size_bytes := len(following.to_bytes())) > TRUST_BYTES_MAX:
        raise RefusedError(
            f"The trust document would have {size_bytes:,} bytes, and boards take at most {TRUST_BYTES_MAX:,}: give "
            "shorter reasons, or rotate the release key instead of revoking release after release."
        )
    _require_signers(current.root, signing, f"of version {current.version}")
    _require_signers(following.root, signing, f"of version {following.version}")
    return folder / f"trust-{following.version}.json", sign_trust(following, signing)


def begin(folder: Path) -> None:
    """Gives a folder of an earlier version, which has a release key only, its root key and first document.

    Raises InputError for a folder that has lost its documents: boards would follow no new ones.
    """
    if _paths(folder) or not (folder / "release.key").is_file():
        return
    if (folder / "root.key").exists() or (folder / "root.pub").exists():
        raise InputError(
            f"{folder} has a root key and no trust document: get its trust-N.json back from a copy. Where there never "
            "was one, move root.key and root.pub away, and new ones are made."
        )
    root_key, release_key = Ed25519PrivateKey.generate(), key_files.load_signing_key(folder / "release.key")
    key_files.write_new(folder / "root.key", key_files.private_pem(root_key))
    key_files.write_new(folder / "root.pub", key_files.public_pem(root_key))
    key_files.write_new(folder / "trust-1.json", first_document(root_key, release_key))


def rotate_release_key(folder: Path, root_keys: Sequence[Path]) -> tuple[str, Path]:
    """A new release key beside the old one, which stays trusted until it is revoked.

    Returns the old key's id and the new document. The old key is kept as `release-<id>.key`. Raises as `change`,
    and then nothing was written.
    """
    begin(folder)
    old = key_files.load_signing_key(folder / "release.key")
    new = Ed25519PrivateKey.generate()
    wanted = _with_keys(folder, newest(folder), "release", (new.public_key(),))
    path, data = _following(folder, _signing_keys(folder, root_keys), release=wanted)
    saved = _save_pair(folder, new, "release")  # before the document: a key that is trusted must not be lost
    key_files.write_new(path, data)
    _save_pair(folder, old, "release")
    for file in saved:
        file.replace(folder / f"release{file.suffix}")
    return key_id(old.public_key()), path


def rotate_root_key(folder: Path, root_keys: Sequence[Path]) -> tuple[str, Path]:
    """A new root key in place of the folder's; old and new sign. Returns the old key's id and the document."""
    begin(folder)
    old_path = _root_key_paths(folder, root_keys)[0]
    old, new = key_files.load_signing_key(old_path), Ed25519PrivateKey.generate()
    root = newest(folder).root
    old_public = old.public_key().public_bytes_raw().hex()
    kept = tuple(key for key in root.keys if key != old_public)
    wanted = (*kept, new.public_key().public_bytes_raw().hex())
    signing = [*_signing_keys(folder, root_keys), new]
    path, data = _following(folder, signing, root={"threshold": root.threshold, "keys": wanted})
    saved = _save_pair(folder, new, "root")
    key_files.write_new(path, data)
    _save_pair(folder, old, "root")
    for file in saved:
        file.replace(folder / f"root{file.suffix}")
    return key_id(old.public_key()), path


def add_keys(
    folder: Path, root_keys: Sequence[Path], role: str, added: Sequence[Path], threshold: int | None
) -> Path:
    """Trusts more keys (`*.pub`) in the role `root` or `release`, or wants another number of signatures.

    Raises as `change`, and InputError for more signatures than there are keys.
    """
    begin(folder)
    wanted = _with_keys(folder, newest(folder), role, [load_public_key(path) for path in added])
    most = len(wanted["keys"])
    if threshold is not None and threshold > most:
        raise InputError(
            f"{threshold} {role} keys are to sign and {most} would be trusted; give at most {most}, or add keys."
        )
    return change(folder, root_keys, **{role: wanted | ({"threshold": threshold} if threshold else {})})


def _with_keys(
    folder: Path, document: TrustDocument, role: str, added: Sequence[Ed25519PublicKey]
) -> dict[str, Any]:
    """Returns the role's signers and these. Release keys that were revoked go: their revocation is what boards judge
    by.
    """
    signers: SignerSet = getattr(document, role)
    kept = document.release_keys() if role == "release" else signers.public_keys()
    keys = tuple(dict.fromkeys(key.public_bytes_raw().hex() for key in (*kept, *added)))
    if len(keys) > SIGNATURES_MAX:
        remedy = f"; revoke one first: edgewright keys revoke {folder} ID" if role == "release" else ""
        raise RefusedError(
            f"There would be {len(keys)} {role} keys, and at most {SIGNATURES_MAX} can be{remedy}."
        )
    return {"threshold": signers.threshold, "keys": keys}


def renew(folder: Path, root_keys: Sequence[Path], days: float | None) -> Path:
    """The same document for so many days from now; None: without an end. Raises as `change`."""
    if days is not None and (not isinstance(days, (int, float)) or not 0 < days <= DAYS_MAX):
        raise InputError(
            f"A trust document can't be renewed for {days!r} days; give up to {DAYS_MAX}, or None."
        )
    expires = None if days is None else _now() + datetime.timedelta(days=days)
    return change(folder, root_keys, expires=expires)


def parse_days(text: str) -> float | None:
    """'90' or 'never'; raises InputError."""
    if text == "never":
        return None
    if not re.fullmatch(r"\d{1,5}", text) or int(text) == 0:
        raise InputError(
            f"--expires is {text!r}; give a number of days up to {DAYS_MAX}, for instance 365, or never."
        )
    return float(text)


def revoke(folder: Path, root_keys: Sequence[Path], what: Revocation) -> Path:
    """Writes a document in which this no longer counts. Revoking it again replaces `stop` and `reason`."""
    begin(folder)
    current = newest(folder)
    others = tuple(each for each in current.revoked if (each.kind, each.sha256) != (what.kind, what.sha256))
    return change(folder, root_keys, revoked=(*others, what))


def _signing_keys(folder: Path, root_keys: Sequence[Path]) -> list[Ed25519PrivateKey]:
    return [key_files.load_signing_key(path) for path in _root_key_paths(folder, root_keys)]


def _root_key_paths(folder: Path, root_keys: Sequence[Path]) -> list[Path]:
    """Returns the keys to sign with. Raises InputError where none is given and the folder's is kept elsewhere."""
    own = folder / "root.key"
    if not root_keys and not own.exists():
        raise InputError(
            f"{own} is not there, and a root key must sign: name the file of yours by --root-key."
        )
    return list(root_keys) or [own]


def _require_signers(signers: SignerSet, signing: Sequence[Ed25519PrivateKey], whose: str) -> None:
    known: list[Ed25519PublicKey] = list(signers.public_keys())
    ids = {key_id(key) for key in known}
    have = {key_id(key.public_key()) for key in signing} & ids
    if len(have) < signers.threshold:
        names = ", ".join(sorted(each[:12] for each in ids))
        message = (
            f"{len(have)} of the root keys {whose} ({names}) would sign; {signers.threshold} must. "
            "Give them with --root-key."
        )
        raise RefusedError(message, Reason.REASON_KEY_UNTRUSTED)


def _save_pair(folder: Path, key: Ed25519PrivateKey, name: str) -> list[Path]:
    """The pair as `<name>-<id>.key` and `.pub`; a pair that is there already is this one."""
    stem = f"{name}-{key_id(key.public_key())[:8]}"
    pair = {f"{stem}.key": key_files.private_pem(key), f"{stem}.pub": key_files.public_pem(key)}
    for file, data in pair.items():
        if not (folder / file).exists():
            key_files.write_new(folder / file, data)
    return [folder / file for file in pair]


def _paths(folder: Path) -> dict[int, Path]:
    matches = (re.fullmatch(r"trust-([1-9]\d{0,8})\.json", path.name) for path in folder.glob("trust-*.json"))
    return {int(match[1]): folder / match[0] for match in matches if match}


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
