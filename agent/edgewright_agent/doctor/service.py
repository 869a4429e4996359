"""Checks that this systemd knows what the unit file asks of it."""

from __future__ import annotations

import re
from pathlib import Path

from edgewright_agent.doctor.access import CONFIGURATION
from edgewright_agent.doctor.finding import Finding, Subject, ok, warning
from edgewright_agent.telemetry.collectors.sysfs import read_text

LOAD_CREDENTIAL_SINCE = 247
LIBRARIES = ("lib/systemd", "usr/lib/systemd", "usr/lib/*/systemd")


def systemd_loads_credentials(subject: Subject) -> Finding | None:
    """Checks that the unit's LoadCredential= works here, or that its stand-in is set."""
    version = _version(subject.root)
    if version is None or version >= LOAD_CREDENTIAL_SINCE:
        return None if version is None else ok(f"systemd {version} hands the agent its credentials.")
    environment = read_text(subject.root / CONFIGURATION / "agent.env") or ""
    if re.search(r"^CREDENTIALS_DIRECTORY=", environment, re.MULTILINE):
        return ok(f"systemd {version} knows no LoadCredential=, and agent.env says where the files are.")
    return warning(
        f"systemd {version} knows no LoadCredential= ({LOAD_CREDENTIAL_SINCE} does): under the unit file the agent "
        "finds no certificate and no key.",
        f"Do as the head of edgewright-agent.service says: CREDENTIALS_DIRECTORY=/{CONFIGURATION} in agent.env, and "
        "files there that the agent's user can read.",
    )


def _version(root: Path) -> int | None:
    found = [
        re.match(r"libsystemd-shared-(\d+)", library.name)
        for folder in LIBRARIES
        for library in root.glob(f"{folder}/libsystemd-shared-*")
    ]
    return max((int(match[1]) for match in found if match), default=None)
