"""Whom boards trust, and which boards took that up: the results of `Credentials.trust` and `Credentials.tell`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgewright.dsse import key_id
from edgewright.trust.document import SignerSet, TrustDocument
from edgewright_builder.show.sheet import Facts, Lines, Sheet, shown


@shown
@dataclass(frozen=True)
class TrustStatement:
    """The newest trust document of a credentials folder: who may sign artifacts, and what is revoked."""

    folder: Path
    content: TrustDocument

    def _document(self) -> TrustDocument:
        return self.content

    def _sheet(self) -> Sheet:
        content = self.content
        revoked = set(content.revocations("key"))
        expires = f"{content.expires:%Y-%m-%d %H:%M} UTC" if content.expires else "never"
        rows = [
            ("issued", f"{content.issued:%Y-%m-%d %H:%M} UTC"),
            ("expires", expires),
            ("root", _signers(content.root, set())),
            ("release", _signers(content.release, revoked)),
            *(
                (f"revoked {each.kind}", f"{each.sha256[:16]}{' (stop)' * each.stop} {each.reason}".rstrip())
                for each in content.revoked
            ),
        ]
        return Sheet((Facts(f"Trust document {content.version} in {self.folder}", rows),))


@dataclass(frozen=True)
class UntrustedRelease:
    """A release on a board that is not trusted any more."""

    release: str
    active: bool
    stop: bool
    reason: str

    @property
    def fate(self) -> str:
        """What the board does with it from now on, in words."""
        if self.active:
            return "was active and stops" if self.stop else "goes on serving, but is not activated again"
        return "is not activated again"


@dataclass(frozen=True)
class BoardTrust:
    """What one board answered. `error` is its sentence where it did not take the document up."""

    host: str
    version: int | None = None  # in force now
    before: int | None = None
    withdrawn: tuple[UntrustedRelease, ...] = ()
    error: str | None = None

    def lines(self) -> list[str]:
        """Returns what happened, and a line for each release it touches."""
        if self.error is not None:
            return [f"{self.host}: {self.error}"]
        had = "as before" if self.before == self.version else f"before: {self.before}"
        first = f"{self.host}: trust document {self.version} is in force ({had})"
        return [
            first,
            *(f"  release {each.release[:12]} {each.fate}: {each.reason}" for each in self.withdrawn),
        ]


@shown
@dataclass(frozen=True)
class TrustUpdate:
    """What each board answered to the newest trust document."""

    boards: tuple[BoardTrust, ...]

    @property
    def failed(self) -> tuple[BoardTrust, ...]:
        """The boards that did not take it up."""
        return tuple(each for each in self.boards if each.error is not None)

    def _sheet(self) -> Sheet:
        return Sheet((Lines([line for each in self.boards for line in each.lines()]),))


def _signers(signers: SignerSet, revoked: set[str]) -> str:
    names = [key_id(key) for key in signers.public_keys()]
    listed = ", ".join(name[:8] + (" (revoked)" if name in revoked else "") for name in names)
    return f"{signers.threshold} of {listed}"
