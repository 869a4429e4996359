"""The trust of this board: the newest document it was given, kept on disk, and what follows from it."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from edgewright.dsse import verify_envelope
from edgewright.durable import TEMPORARY_PREFIX, FileSystem, disk_errors, read_regular, write_durably
from edgewright.errors import EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.trust import accepted_signatures
from edgewright.trust.accepted_signatures import RevocationVerdict
from edgewright.trust.document import TrustDocument
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.runtime.failures import log_failure
from edgewright_agent.store.files.state_file import StateFile
from edgewright_agent.trust.clock import MonotoneClock
from edgewright_agent.trust.earlier_keys import TrustChain

DOCUMENTS_MAX = 64  # of one update
CHAIN = "chain.json"
ASIDE_PREFIX = "aside-"  # what belonged to another chain

_log = logging.getLogger(__name__)


class Trust:
    """What `--trust` gave and every document accepted since, in `folder`. Thread-safe.

    `folder` holds `<version>.json`, the document in force, `chain.json`, the keys of all documents so far, and
    `clock`. The document's name says which version it must be at least: a document that is damaged there never makes
    an older one count again. Nothing is then staged or activated until a document of that version or a newer one
    arrives. A document that the disk has no room for is in force all the same: a revocation must not wait for room.

    Where `--trust` gives something of another chain, what is stored does not count and is put aside; where it gives
    nothing, nobody is trusted.
    """

    def __init__(
        self,
        base: TrustDocument | None,
        folder: Path | None = None,
        *,
        fs: FileSystem | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fs = fs or FileSystem()
        self._folder = folder
        self._mutex = threading.RLock()
        self._base = base
        self._floor = 0
        self._damage = ""
        self._document = base
        self._unkept: bytes | None = None  # the envelope of the document in force, not on the disk yet
        self._chain = TrustChain()
        self._chain_file = None if folder is None else StateFile(self._fs, folder / CHAIN)
        if folder is not None:
            with disk_errors(folder):
                self._fs.make_folder(folder)
        if folder is not None and base is not None and self._continues_chain(base, folder):
            self._load(folder)
        self._extend_chain(self._document)
        self._clock = MonotoneClock(self._fs, folder / "clock" if folder else None, clock)

    @property
    def document(self) -> TrustDocument | None:
        """Returns the document in force; None if the agent was given no keys."""
        with self._mutex:
            return self._document

    def now(self) -> datetime:
        """Returns the time by which expiry is judged."""
        with self._mutex:
            return self._clock.now()

    @property
    def problem(self) -> str:
        """Returns why nothing can be staged now, as a sentence; empty if it can."""
        try:
            self._usable()
        except EdgewrightError as error:
            return str(error)
        return ""

    def update(self, documents: Sequence[bytes]) -> TrustDocument:
        """Takes up a chain of documents, oldest first; durable when it returns.

        Raises as `accepted_signatures.follow`, and OutsideError: then it is in force and not durable, and may be sent
        again.
        """
        if len(documents) > DOCUMENTS_MAX:
            raise InputError(f"{len(documents)} trust documents came; at most {DOCUMENTS_MAX} in one call.")
        with self._mutex:
            if self._document is None:
                message = "This board was given no keys to trust; start it with --trust."
                raise RefusedError(message, Reason.REASON_KEY_UNTRUSTED)
            try:
                document, envelope = accepted_signatures.follow(self._document, documents)
            except RefusedError as error:
                if error.reason != Reason.REASON_TRUST_STALE or self._unkept not in documents:
                    raise
                self._keep(self._document)  # sent again, as it was not kept
                return self._document
            self._take_up(document, envelope)
            return document

    def check_release(self, manifest: bytes, envelope: bytes) -> None:
        """Raises RefusedError unless this may be staged and activated: signatures, revocations, expiry."""
        accepted_signatures.check_release(self._usable(), manifest, envelope)

    def check_serving(self, manifest: bytes, envelope: bytes) -> None:
        """Raises unless this may go on being served after a restart.

        An expiry and a dropped key do not forbid it; a release of another chain of trust is refused. Raises
        RefusedError (`KEY_UNTRUSTED`), InputError (`SIGNATURE_INVALID`).
        """
        with self._mutex:
            if self._document is None:
                raise _nobody_trusted()
            keys = self._chain.public_keys()
        verify_envelope(manifest, envelope, keys)

    def revocation_of(self, digest: str, manifest: bytes, envelope: bytes) -> RevocationVerdict | None:
        """Returns why a release no longer counts; None if it does. See `accepted_signatures.revocation_of`."""
        document = self.document
        return (
            None
            if document is None
            else accepted_signatures.revocation_of(document, digest, manifest, envelope)
        )

    def check_certificate(self, sha256: str) -> None:
        """Raises RefusedError (`REVOKED`)."""
        document = self.document
        if document is not None:
            accepted_signatures.check_certificate(document, sha256)

    def is_revoked_certificate(self, sha256: str) -> bool:
        """Whether the document in force revokes this client certificate."""
        document = self.document
        return document is not None and sha256 in document.revocations("certificate")

    def _usable(self) -> TrustDocument:
        with self._mutex:
            if self._damage:
                raise RefusedError(self._damage, Reason.REASON_KEY_UNTRUSTED)
            if self._document is None:
                raise _nobody_trusted()
            self._keep(self._document)
            accepted_signatures.check_fresh(self._document, self._clock.now())
            return self._document

    def _take_up(self, document: TrustDocument, envelope: bytes) -> None:
        """Puts the document in force before it is written: a revocation is obeyed even where it can't be kept."""
        if document.version < self._floor:
            message = (
                f"Trust document {document.version} came; this board had {self._floor} before it was "
                "damaged, and needs that one or a newer one."
            )
            raise RefusedError(message, Reason.REASON_TRUST_STALE)
        self._document, self._damage, self._floor = document, "", document.version
        self._unkept = envelope
        self._chain = self._chain.extended(document)
        try:
            self._keep(document)
        finally:
            self._clock.reset(document.issued)

    def _continues_chain(self, base: TrustDocument, folder: Path) -> bool:
        """Whether `base` belongs to the stored chain. If not, what is stored is put aside.

        A store that an earlier agent wrote has no chain: its documents count as following `base`.
        """
        assert self._chain_file is not None, "there is a folder"
        saved = self._chain_file.read()
        self._chain = TrustChain() if saved is None else TrustChain.from_json(saved)
        if saved is None or self._chain.holds(base):
            self._chain = self._chain.extended(base)
            return True
        _log.warning("--trust names none of the root keys of %s; that is put aside", folder)
        self._put_aside(folder)
        self._chain = TrustChain().extended(base)
        return False

    def _put_aside(self, folder: Path) -> None:
        aside = folder / f"{ASIDE_PREFIX}{time.time_ns()}"
        with disk_errors(aside):
            self._fs.create_folder(aside)
            for path in sorted(folder.glob("*.json*")):
                self._fs.rename(path, aside / path.name)
            self._fs.sync_folder(aside)
            self._fs.sync_folder(folder)

    def _extend_chain(self, document: TrustDocument | None) -> None:
        """Remembers the keys of the document in force. If the disk takes no writes, the next document tries again."""
        if document is None:
            return
        self._chain = self._chain.extended(document)
        try:
            self._save_chain()
        except OutsideError as error:
            log_failure(_log, "the chain of trust can't be remembered", error)

    def _save_chain(self) -> None:
        if self._chain_file is not None and self._chain_file.read() != self._chain.to_json():
            self._chain_file.write(self._chain.to_json())

    def _load(self, folder: Path) -> None:
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            self._fs.unlink(path)
        stored = sorted((int(path.stem), path) for path in folder.glob("*.json") if path.stem.isdecimal())
        if not stored or (self._base is not None and stored[-1][0] <= self._base.version):
            return  # `--trust` gave a newer one
        version, path = stored[-1]
        try:
            document = accepted_signatures.read_signed(read_regular(path))
            if document.version != version:
                raise InputError(f"it is version {document.version}")
        except (EdgewrightError, OSError) as error:
            self._floor = version
            self._damage = (
                f"The stored trust document {path} is damaged ({_plain(error)}), so nothing is staged or "
                "activated. Send it again with `edgewright keys trust DIR HOST:PORT`."
            )
            return
        self._document, self._floor = document, version

    def _keep(self, document: TrustDocument) -> None:
        """Writes the document in force if it is not on the disk yet. Raises OutsideError if it still is not."""
        if self._unkept is None:
            return
        try:
            self._save(document, self._unkept)
        except OutsideError as error:
            message = (
                f"Trust document {document.version} is in force but could not be kept: the next start would "
                f"forget it, so nothing is staged or activated. {error} Then send it again with "
                "`edgewright keys trust DIR HOST:PORT`."
            )
            raise OutsideError(message, error.reason) from error
        self._unkept = None

    def _save(self, document: TrustDocument, envelope: bytes) -> None:
        if self._folder is None:
            return
        self._save_chain()  # first: the chain may know more than the document, and never less
        path = self._folder / f"{document.version:08d}.json"
        write_durably(self._fs, path, envelope)
        for other in self._folder.glob("*.json"):
            if other != path and other.stem.isdecimal():
                with contextlib.suppress(OSError):  # the newest counts
                    self._fs.unlink(other)


def _nobody_trusted() -> RefusedError:
    message = "Nobody is trusted here, so every release is refused; start the agent with --trust."
    return RefusedError(message, Reason.REASON_KEY_UNTRUSTED)


def _plain(error: Exception) -> str:
    return re.sub(r"\.$", "", str(error))
