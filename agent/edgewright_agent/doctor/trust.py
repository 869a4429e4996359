"""Checks that a push would be accepted, by `--trust` and the trust document in the store. It changes nothing there."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from edgewright.dsse import key_id
from edgewright.durable import FileSystem
from edgewright.errors import InputError
from edgewright.trust.document import TrustDocument
from edgewright.trust.keys import load_trust
from edgewright_agent.doctor.access import ask_for_root
from edgewright_agent.doctor.finding import Finding, Subject, ok, problem, warning
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.trust import Trust

SOON = timedelta(days=30)
RENEW = "Renew it: `edgewright keys trust DIR --expires 365`, then `edgewright keys trust DIR HOST:PORT`."


class _Untouched(FileSystem):
    """A file system that reads, and writes nowhere: an agent may be at work on this store."""

    def create(self, path: Path) -> int:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def sync_file(self, file: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass

    def rename(self, source: Path, target: Path) -> None:
        pass

    def unlink(self, path: Path) -> None:
        pass

    def make_folder(self, path: Path) -> None:
        pass

    def create_folder(self, path: Path) -> None:
        pass


def trust_is_valid(subject: Subject) -> Finding | None:
    """Checks that somebody is trusted here, and will be for a while."""
    stored = None if subject.store is None else Layout(subject.store).trust
    closed = ask_for_root(subject, (*subject.trust, *([stored] if stored else ())))
    if closed is not None:
        return closed
    try:
        given = load_trust(subject.trust)
    except InputError as error:
        return problem(
            str(error), "Copy release.pub or the newest trust-N.json of the credentials to the board."
        )
    held = Trust(given, stored, fs=_Untouched(), clock=subject.clock)
    if held.document is None:
        return warning(
            "No key says whose releases may run here: the agent will refuse every push.",
            "Copy release.pub of the credentials folder to the board and name it with --trust.",
        )
    if held.problem:
        return problem(held.problem, RENEW)
    return _revoked(given, held.document) or _until(held.document, held.now())


def _revoked(given: TrustDocument | None, document: TrustDocument) -> Finding | None:
    """Returns a warning if `--trust` names a key that is revoked: without the store it would count again."""
    revoked = document.revocations("key")
    lost = [key_id(key)[:12] for key in (given.release_keys() if given else ()) if key_id(key) in revoked]
    if not lost:
        return None
    return warning(
        f"--trust names the key {lost[0]}, which trust document {document.version} of the store revokes: releases "
        f"need {_keys(document)}.",
        f"Name trust-{document.version}.json of the credentials folder with --trust instead.",
    )


def _until(document: TrustDocument, now: datetime) -> Finding:
    if not document.version:
        return ok("Releases may run if their key is among those of --trust; that does not expire.")
    if document.expires is None:
        return ok(f"Trust document {document.version} does not expire; releases need {_keys(document)}.")
    if document.expires - now <= SOON:
        return warning(
            f"Trust document {document.version} expires on {document.expires:%Y-%m-%d}.",
            RENEW,
        )
    return ok(
        f"Trust document {document.version} is valid until {document.expires:%Y-%m-%d}; releases need "
        f"{_keys(document)}."
    )


def _keys(document: TrustDocument) -> str:
    keys = ", ".join(key_id(key)[:12] for key in document.release_keys())
    return f"{document.release.threshold} of the keys {keys}"
