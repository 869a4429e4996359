"""Pages that only the start needed are let go of, and nothing is lost."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

from edgewright_agent.runtime.startup_pages import unwritten_files


def test_a_process_gets_smaller_and_goes_on() -> None:
    program = (
        "import hashlib, re, ssl, sqlite3\n"
        "from pathlib import Path\n"
        "from edgewright_agent.runtime.startup_pages import release_startup_pages\n"
        "def rss(): return int(re.search(r'Rss:\\s+(\\d+)', Path('/proc/self/smaps_rollup').read_text())[1])\n"
        "before = rss(); mappings = release_startup_pages(); after = rss()\n"
        "assert mappings and after < 0.8 * before, (before, after)\n"
        "ssl.create_default_context(); sqlite3.connect(':memory:').execute('select 1')\n"
        "import decimal; assert release_startup_pages(mappings) <= mappings; assert rss() < before\n"
        "print(hashlib.sha256(b'abc').hexdigest()[:8])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("ba7816bf\n", 0), done.stderr


def test_written_and_writable_pages_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a" * mmap.PAGESIZE)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapping:
        assert not mapped(file)  # may be written to
        mapping[0] = ord("b")
        assert not mapped(file)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        assert mapping[0] == ord("a")
        assert mapped(file)


def mapped(file: Path) -> bool:
    """Whether the mapping of `file` would be let go of."""
    starts = {start for start, _ in unwritten_files()}
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return any(int(line.split("-")[0], 16) in starts for line in lines if line.endswith(str(file)))
