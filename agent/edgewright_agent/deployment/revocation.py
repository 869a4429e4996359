"""Applies the trust in force to the releases on this board, by the policy of `edgewright.trust.accepted_signatures`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from pathlib import Path

from edgewright.durable import raise_unless_gone
from edgewright.errors import EdgewrightError, OutsideError, RefusedError
from edgewright.trust.accepted_signatures import RevocationVerdict
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.state import ChangeOutcome, Phase, State
from edgewright_agent.store import StagedRelease
from edgewright_agent.store.files.releases import read_first_signed, read_signed
from edgewright_agent.trust import Trust

Releases = Mapping[str, StagedRelease]  # by digest


def check_activation(trust: Trust, release: StagedRelease, staged: Releases) -> None:
    """Raises unless this staged release, and the base it may need, are still trusted.

    Raises RefusedError (`REVOKED`, `KEY_UNTRUSTED`, `TRUST_EXPIRED`), InputError (`SIGNATURE_INVALID`: its
    signature was damaged on the disk), OutsideError.
    """
    for each in _with_base(release, staged):
        trust.check_release(*_signed(each))


def check_serving(trust: Trust, release: StagedRelease) -> None:
    """Raises unless this release may answer requests, whenever it was activated.

    Raises RefusedError (`KEY_UNTRUSTED`), OutsideError (`STORE_CORRUPT`: what counts of its signatures is damaged).
    """
    try:
        trust.check_serving(*_signed(release))
    except EdgewrightError as error:
        if not _counts_by_first_signature(trust, release):
            raise _unserved(release, error) from None


def _counts_by_first_signature(trust: Trust, release: StagedRelease) -> bool:
    """Whether the signature it was staged with counts where the later one is damaged.

    That of a revoked key does not: then the later one, of a good key, is why the release counted.
    """
    try:
        signed = _signed(release, read_first_signed)
        trust.check_serving(*signed)
        return trust.revocation_of(release.digest, *signed) is None
    except EdgewrightError:
        return False


def _unserved(release: StagedRelease, error: EdgewrightError) -> EdgewrightError:
    if isinstance(error, RefusedError):
        message = f"Release {release.digest[:12]} was accepted under another trust: {error}"
        return RefusedError(message, error.reason)
    if isinstance(error, OutsideError):
        return error
    message = (
        f"The signature of release {release.digest[:12]} is damaged on the disk. Push its artifact again."
    )
    return OutsideError(message, Reason.REASON_STORE_CORRUPT)


def check_roll_back(trust: Trust, release: StagedRelease, staged: Releases) -> None:
    """Raises unless an operator may go back to this release. An expiry or a dropped key does not forbid it.

    Raises RefusedError (`REVOKED`).
    """
    for each in _with_base(release, staged):
        found = _withdrawal(trust, each)
        if found is not None:
            message = f"Release {each.digest[:12]} can't be used: {found.reason}. Push one that is trusted."
            raise RefusedError(message, Reason.REASON_REVOKED)


def revoked_releases(trust: Trust, staged: Releases) -> dict[str, RevocationVerdict]:
    """Returns the staged releases that were revoked, and with a base the adapters that need it."""
    own = {digest: found for digest, each in staged.items() if (found := _withdrawal(trust, each))}
    needing = {
        digest: replace(own[base], digest=digest, reason=f"its base {base[:12]} can't be used")
        for digest, each in staged.items()
        if (base := each.manifest.base) is not None and base in own and digest not in own
    }
    return own | needing


def stopped_releases(trust: Trust, staged: Releases) -> set[str]:
    """Returns the staged releases that must not answer another request."""
    return {digest for digest, found in revoked_releases(trust, staged).items() if found.stop}


def without_stopped(state: State, staged: Set[str], stopped: Set[str]) -> State:
    """Returns the state in which `stopped` do not serve, not even for a moment. Pure.

    A trial of one ends. An active one is replaced by the previous release if that may serve. Nothing is denied: a
    release that is signed again may be tried again.
    """
    gone = state.in_use & stopped
    if not gone:
        return state
    kept = staged - stopped
    left = replace(state, active=_kept(state.active, kept), previous=_kept(state.previous, kept))
    if state.candidate is not None and state.candidate not in stopped:
        return left  # its trial goes on; what it would go back to has changed
    if not left.at_rest:
        left = replace(
            left, phase=Phase.IDLE, outcome=ChangeOutcome.FAILED, candidate=None, given_up=(), attempts=0,
            transitions=0, confirm_within_seconds=0.0, awaiting_confirmation=False,
        )  # fmt: skip
    if gone == {state.previous}:
        return left
    why = f"release {min(gone)[:12]} was revoked"
    if left.active is not None:
        return replace(left, message=f"{why}; serving {left.active[:12]}")
    back = activation_rules.way_back(left)
    if back is not None:
        return activation_rules.go_back(left, back, why)
    return replace(left, message=f"{why}; nothing is served")


def _kept(release: str | None, kept: Set[str]) -> str | None:
    return release if release in kept else None


def _with_base(release: StagedRelease, staged: Releases) -> list[StagedRelease]:
    base = release.manifest.base
    return [release] if base is None or base not in staged else [release, staged[base]]


def _withdrawal(trust: Trust, release: StagedRelease) -> RevocationVerdict | None:
    try:
        return trust.revocation_of(release.digest, *_signed(release))
    except EdgewrightError:
        return None  # a damaged signature is no revocation; activating it is refused for what it is


def _signed(
    release: StagedRelease, read: Callable[[Path], tuple[bytes, bytes]] = read_signed
) -> tuple[bytes, bytes]:
    try:
        return read(release.folder)
    except OSError as error:
        raise_unless_gone(error, release.folder)
        message = f"Release {release.digest[:12]} can't be read: {error.strerror}. Push it again."
        raise OutsideError(message, Reason.REASON_STORE_CORRUPT) from None
