"""Which Jetson Linux a board runs."""

from __future__ import annotations

import re
from pathlib import Path

RELEASE_FILE = "etc/nv_tegra_release"


def parse_l4t(release: str) -> str | None:
    """Returns '36.4.3' from the text of `/etc/nv_tegra_release`: '# R36 (release), REVISION: 4.3, …'."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"{match.group(1)}.{match.group(2)}" if match else None


def jetson_linux(root: Path = Path("/")) -> str | None:
    """Returns the release that runs here; None where it is none."""
    try:
        return parse_l4t((root / RELEASE_FILE).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
