"""A run's folder belongs to one build at a time, and a used one only to a build that resumes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgewright.errors import InputError, RefusedError
from edgewright_builder.run.folder_owner import claimed, refuse_used

HOLD = """
import sys, time
from pathlib import Path
from edgewright_builder.run.folder_owner import claimed
with claimed(Path(sys.argv[1]), resume=True):
    print("claimed", flush=True)
    time.sleep(60)
"""


def test_a_second_build_is_refused_with_who_has_the_folder(tmp_path: Path) -> None:
    with (
        claimed(tmp_path / "run", resume=False),
        pytest.raises(RefusedError, match=rf"process {os.getpid()}.*another") as raised,
        claimed(tmp_path / "run", resume=True),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_a_build_of_another_process_keeps_others_out_until_it_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "claimed\n"
        with pytest.raises(RefusedError, match=f"process {holder.pid}"), claimed(run, resume=True):
            pass
        holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while True:
        try:
            with claimed(run, resume=True):
                break
        except RefusedError:
            assert time.monotonic() < deadline


def test_a_child_of_a_killed_build_does_not_hold_the_folder(tmp_path: Path) -> None:
    with claimed(tmp_path / "run", resume=False):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with claimed(tmp_path / "run", resume=True):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_used_folder_is_refused_without_resume_also_when_the_other_build_has_ended(tmp_path: Path) -> None:
    run = tmp_path / "run"
    refuse_used(run, resume=False)
    with claimed(run, resume=False):
        refuse_used(run, resume=True)
        (run / "recipe.yaml").write_text("x")
    with pytest.raises(RefusedError, match="not empty: add --resume"):
        refuse_used(run, resume=False)
    with pytest.raises(RefusedError, match="not empty: add --resume"), claimed(run, resume=False):
        pass
    with claimed(run, resume=True):
        assert (run / "recipe.yaml").exists()


@pytest.mark.parametrize("where", ["file", "file/run"])
def test_a_folder_that_can_t_be_made_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="choose another"), claimed(tmp_path / where, resume=False):
        pass
