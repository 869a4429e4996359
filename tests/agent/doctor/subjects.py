"""Boards to examine, and whom to examine them as."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edgewright_agent.doctor import checks
from edgewright_agent.doctor.finding import Finding, Severity, Subject
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_profiles import load_profile

NOW = datetime.now(timezone.utc).timestamp()
CGROUPS = "#subsys_name hierarchy num_cgroups enabled\ncpu 0 100 1\nmemory 0 100 1"
UNIFIED = "sys/fs/cgroup/cgroup.controllers"
NOBODY = 65534  # the user without rights


def subject(root: Path, profile: str = "jetson-agx-orin-64gb", **fields: object) -> Subject:
    return replace(Subject(root=root, profile=load_profile(profile), start_engines=False), **fields)  # type: ignore[arg-type]


def finding_of(name: str, what: Subject) -> Finding:
    finding = checks.CHECKS[name](what)
    assert finding is not None
    assert bool(finding.remedy) == (finding.result is not Severity.OK)
    return finding


as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can own a file for root and become somebody else"
)


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """As a user without rights; who runs the tests as one is it already."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def tls(keys: Path) -> TlsFiles:
    return TlsFiles(keys / "agent.pem", keys / "agent.key", keys / "ca.pem")
