"""A real agent on a real file system, and the power gone after some of its flushes: what was answered is never lost."""

from __future__ import annotations

import os
import shutil

import pytest
from virtual_board.power_cuts.study import Extent, study

pytestmark = [
    pytest.mark.board,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts disks: run as root"),
    pytest.mark.skipif(
        shutil.which("qemu-storage-daemon") is None, reason="sudo apt install qemu-system-common fuse3"
    ),
]


@pytest.mark.parametrize("file_system", ["ext4", "ext4-writeback", "btrfs"])
def test_old_or_new_whole_and_what_was_answered_is_there(file_system: str) -> None:
    said: list[str] = []
    counts = study(file_system, Extent(every=20, resume_every=10), said.append)
    assert sum(count.cuts for count in counts) >= 20
    assert sum(count.resumed for count in counts) >= 2
    assert not any(count.lost for count in counts), "\n".join(said)
