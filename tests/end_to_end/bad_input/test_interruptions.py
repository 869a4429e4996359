"""A full disk, Ctrl-C or a second build stops a build with one line, and it can go on."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.bad_input.saying import (
    OUTSIDE,
    REFUSED,
    assert_says,
    build,
)
from tests.support.tiny_build import command, environment

STOPPED = 130
STOPPED_LINE = "edgewright: Stopped. Run the same command again with --resume to go on.\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder on which the student's weights do not fit, and the largest file it takes: a file system of its own
    where we may mount one, a limit on files elsewhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield folder, 100_000
        return
    yield folder, resource.RLIM_INFINITY
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_build_at_a_stage_it_can_resume(
    recipe: Path, small_disk: tuple[Path, int]
) -> None:
    folder, file_bytes_max = small_disk

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, resource.RLIM_INFINITY))

    done = build(recipe, folder / "run", preexec_fn=limit_files)
    why = "No space left on device" if file_bytes_max == resource.RLIM_INFINITY else "File too large"
    assert_says(done, OUTSIDE, f"The disk refused to write: {why}", "Make room")
    assert (folder / "run" / "data" / "stage.json").exists()
    assert not (folder / "run" / "student" / "stage.json").exists()


def test_ctrl_c_stops_the_build_with_a_line_and_resume_goes_on(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = interrupted(command(recipe, run), run / "student" / "started")
    assert (first.returncode, first.stderr) == (STOPPED, STOPPED_LINE)
    assert (run / "data" / "stage.json").exists()
    assert not (run / "student" / "stage.json").exists()
    second = interrupted(command(recipe, run, "--resume"), run / "teacher" / "started")
    assert (second.returncode, second.stderr) == (STOPPED, STOPPED_LINE)
    assert "data: done before, kept" in second.stdout
    assert (run / "student" / "stage.json").exists()


def test_a_second_build_in_the_same_folder_is_refused_and_the_first_goes_on(
    recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def refused() -> None:
        assert_says(
            build(recipe, run, "--resume"), REFUSED, "Another build (process", str(run), "another --out"
        )

    first = interrupted(command(recipe, run), run / "student" / "started", meanwhile=refused)
    assert (first.returncode, first.stderr) == (STOPPED, STOPPED_LINE)


def interrupted(
    words: list[str], sign: Path, meanwhile: Callable[[], None] = lambda: None
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a session of its own; Ctrl-C for all of it once the file `sign` is there.

    The command stands still while `meanwhile` is called.
    """
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not sign.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, f"{sign} never came"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            meanwhile()
        finally:
            os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    # Interrupted inside exec(), as dataclasses use it, Python ends by the signal itself: a shell says 130 of both.
    code = 128 - process.returncode if process.returncode < 0 else process.returncode
    return subprocess.CompletedProcess(words, code, stdout, stderr)
