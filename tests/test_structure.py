"""The layout keeps the rules that `scripts/structure` measures: small folders, no circles, walls, one name a thing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "structure"


def test_the_layout_keeps_its_rules() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
