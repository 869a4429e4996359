"""Checks that the agent can read its files, and that nobody else can read the secret ones."""

from __future__ import annotations

import stat

from edgewright.errors import InputError
from edgewright_agent.doctor.access import ask_for_root, is_hidden
from edgewright_agent.doctor.finding import Finding, Subject, ok, problem, warning
from edgewright_agent.runtime.tls import server_credentials


def tls_files_fit(subject: Subject) -> Finding | None:
    """Checks that certificate, key and authority can be read and belong together."""
    if subject.tls is None:
        return warning(
            "No certificate is configured: the agent serves on loopback only, and only with --insecure.",
            "Make one on the host, `edgewright keys certificate DIR --host NAME` (without a DIR yet, `keys create`), "
            "and copy it, its key and ca.pem to the board.",
        )
    tls = subject.tls
    closed = ask_for_root(subject, (tls.certificate, tls.key, tls.authority))
    if closed is not None:
        return closed
    try:
        server_credentials(tls)
    except InputError as error:
        remedy = (
            "Copy agent.pem, agent.key and ca.pem of one credentials folder, readable by the agent's user."
        )
        return problem(str(error), remedy)
    return ok("Certificate, key and authority can be read and belong together.")


def key_is_private(subject: Subject) -> Finding | None:
    """Checks that only its owner can read the board's key."""
    if subject.tls is None or is_hidden(subject.tls.key) or not subject.tls.key.exists():
        return None
    mode = stat.S_IMODE(subject.tls.key.stat().st_mode)
    if mode & 0o077:
        return warning(
            f"The key {subject.tls.key} has mode {mode:04o}: others on this board can read it.",
            f"`chmod 600 {subject.tls.key}`",
        )
    return ok(f"The key has mode {mode:04o}.")


def ca_key_is_elsewhere(subject: Subject) -> Finding | None:
    """Checks that no key that signs certificates, artifacts or trust documents is on the board."""
    if subject.tls is None or is_hidden(subject.tls.key):
        return None
    folder = subject.tls.key.parent
    found = [
        name for name in ("ca.key", "release.key", "root.key", "deployer.key") if (folder / name).exists()
    ]
    if found:
        return warning(
            f"{', '.join(found)} in {folder}: whoever takes this board could deploy to all of them.",
            f"Delete them here, keep them on the host: `rm {' '.join(str(folder / name) for name in found)}`.",
        )
    return ok("No key that signs for others is on this board.")
