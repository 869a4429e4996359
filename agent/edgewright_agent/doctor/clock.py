"""Checks the clock and the certificates that hold for a time. Boards without a battery start in 1970."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cryptography import x509

from edgewright_agent.doctor.access import ask_for_root
from edgewright_agent.doctor.finding import Finding, Subject, ok, problem, warning

# This version did not exist before: an earlier date is a clock that was never set.
RELEASED = datetime(2026, 11, 1, tzinfo=timezone.utc)
SOON = timedelta(days=30)
SET_CLOCK = (
    "Set it: `sudo timedatectl set-ntp true` with a network, `sudo timedatectl set-time 'YYYY-MM-DD HH:MM'` "
    "without; a board without a battery needs that after every power cut."
)


def clock_is_set(subject: Subject) -> Finding:
    """Checks that the clock is not before this software was made."""
    now = _now(subject)
    if now < RELEASED:
        return problem(
            f"The clock says {now:%Y-%m-%d}, before this agent was made: no certificate is valid yet.",
            SET_CLOCK,
        )
    return ok(f"The clock says {now:%Y-%m-%d %H:%M} UTC.")


def certificates_are_valid(subject: Subject) -> Finding | None:
    """Checks that the board's certificate and its authority's are valid now, and for a while."""
    if subject.tls is None:
        return None
    now, paths = _now(subject), (subject.tls.certificate, subject.tls.authority)
    closed = ask_for_root(subject, paths)
    if closed is not None:
        return closed
    for path in paths:
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it holds no certificate"
            remedy = "Copy it from the credentials folder again, readable by the agent's user."
            return problem(f"The certificate {path} can't be read: {why}.", remedy)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now < begin:
            return problem(
                f"{path} is valid from {begin:%Y-%m-%d}; the clock says {now:%Y-%m-%d}.", SET_CLOCK
            )
        if now > end:
            remedy = "If the clock is right, make a new one on the host: `edgewright keys certificate DIR --host NAME`."
            return problem(f"{path} was valid until {end:%Y-%m-%d}; the clock says {now:%Y-%m-%d}.", remedy)
        if now > end - SOON:
            remedy = (
                "Make a new one on the host now, while the board can be reached: "
                "`edgewright keys certificate DIR --host NAME`."
            )
            return warning(f"{path} is valid until {end:%Y-%m-%d} only.", remedy)
    return ok("The certificates are valid.")


def _now(subject: Subject) -> datetime:
    return datetime.fromtimestamp(subject.clock(), timezone.utc)
