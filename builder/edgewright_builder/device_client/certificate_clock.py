"""Whether a clock, this machine's or the board's, is why TLS fails: a certificate counts from one time to another."""

from __future__ import annotations

import asyncio
import ssl
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from edgewright.address import Address

HANDSHAKE_SECONDS = 5.0
SET_CLOCK = "`sudo timedatectl set-ntp true`, or chrony"


async def clock_problem(address: Address, client: Path, authority: Path, *, is_refused: bool) -> str | None:
    """Returns which certificate lies outside of its time, by which clock, and what to do; None if the clock is right.

    `client` and `authority` are our PEM files. `is_refused`: the board hung up on our certificate; otherwise we did
    not accept the board's.
    """
    now = utc_now()
    try:
        ours, issuer = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (client, authority))
    except (OSError, ValueError):
        return None
    for path, certificate in ((client, ours), (authority, issuer)):
        if not _is_valid(certificate, now):
            renew = "make new credentials with `edgewright keys create`, or `edgewright keys certificate`"
            return f"{_outside(str(path), certificate, now)} or {renew}."
    if is_refused:
        return _clock_of_board(address, client, ours, now) if _is_issued_by(ours, issuer) else None
    theirs = await asyncio.to_thread(_certificate_of, address)
    if theirs is None or _is_valid(theirs, now) or not _is_issued_by(theirs, issuer):
        return None
    renew = f"make a new one with `edgewright keys certificate DIR --host {address.host}`"
    return f"{_outside(f'The certificate of {address}', theirs, now)} or {renew}. The board's clock may be wrong too."


def utc_now() -> datetime:
    """Returns what this machine's clock says."""
    return datetime.now(timezone.utc)


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _outside(what: str, certificate: x509.Certificate, now: datetime) -> str:
    why = "is not yet valid" if now < certificate.not_valid_before_utc else "has expired"
    return (
        f"{what} {why}: it counts {_period(certificate)}, and this machine's clock says {_minute(now)}. "
        f"If that time is wrong, set the clock ({SET_CLOCK});"
    )


def _clock_of_board(address: Address, client: Path, ours: x509.Certificate, now: datetime) -> str:
    return (
        f"{address} refuses the client certificate {client}, which counts {_period(ours)} and is valid by this "
        f"machine's clock ({_minute(now)}): probably the board's clock is wrong. Look with `date` on the board and set "
        f"it ({SET_CLOCK}); if it is right, use the credentials the agent was started with."
    )


def _period(certificate: x509.Certificate) -> str:
    return f"from {_minute(certificate.not_valid_before_utc)} to {_minute(certificate.not_valid_after_utc)}"


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _certificate_of(address: Address) -> x509.Certificate | None:
    """Returns what the board shows to anybody, unverified: good for an explanation, and for nothing else."""
    try:
        pem = ssl.get_server_certificate((address.host, address.port), timeout=HANDSHAKE_SECONDS)
        return x509.load_pem_x509_certificate(pem.encode())
    except (OSError, ValueError):
        return None
