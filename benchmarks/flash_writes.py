"""What the agent writes to a board's flash: `sudo python benchmarks/flash_writes.py ARTIFACT --credentials KEYS`.

Mounts an ext4 on a disk in a file and counts, by the kernel's counter of the disk's written sectors, journal and
metadata included: a cold push with its activation, beside the artifact's size, and a day on which nobody asks anything.
The day is played: the recorder gets a clock that runs ahead, and everything that it writes is synced at once, so that
no two writes are taken together. What the rest of an agent writes while it idles is counted for real over a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edgewright as ew
from edgewright_agent.telemetry.exporters.recorder import RECORD_SECONDS, Recorder
from edgewright_agent.telemetry.proto import snapshot_to_proto
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_profiles import load_profile

DISK_BYTES = 2 * 2**30
SECTOR_BYTES = 512  # of /sys/block/*/stat, whatever the disk has
KEYS = {"--tls-cert": "agent.pem", "--tls-key": "agent.key", "--tls-ca": "ca.pem", "--trust": "release.pub"}


@dataclass(frozen=True)
class Disk:
    """A mounted disk, and the kernel's name of it."""

    mounted: Path
    name: str

    def written_bytes(self) -> int:
        """Syncs, then returns what has been written since it was attached."""
        os.sync()
        return int(Path(f"/sys/block/{self.name}/stat").read_text(encoding="ascii").split()[6]) * SECTOR_BYTES


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """Makes an ext4 in a file below `folder` and mounts it."""
    image, mounted = folder / "disk", folder / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    # Inode tables and journal are made now; else the kernel makes them while we count.
    must("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    loop = must("losetup", "--find", "--show", str(image)).strip()
    try:
        must("mount", loop, str(mounted))
        try:
            yield Disk(mounted, Path(loop).name)
        finally:
            must("umount", str(mounted))
    finally:
        must("losetup", "--detach", loop)


def must(*command: str) -> str:
    """Runs a program of the system; returns what it printed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return subprocess.run(
        command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    ).stdout


@contextlib.contextmanager
def agent(store: Path, keys: Path) -> Iterator[str]:
    """Runs the agent on `store`; yields its address."""
    command = [
        str(Path(sys.executable).with_name("edgewright-agent")), "serve", "--profile", "this-host",
        "--store", str(store), "--listen", "127.0.0.1:0",
        *(word for option, name in KEYS.items() for word in (option, str(keys / name))),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def resting_day(disk: Disk) -> tuple[int, int]:
    """Returns how often a day without requests is written to the disk, and the bytes."""
    telemetry = Telemetry(load_profile("this-host"))
    now = 0.0
    recorder = Recorder(
        disk.mounted / "day", lambda: snapshot_to_proto(telemetry.snapshot()), clock=lambda: now
    )
    writes, entries, before = 0, 0, disk.written_bytes()
    for number in range(int(24 * 3600 / RECORD_SECONDS)):
        now = number * RECORD_SECONDS
        recorder.look()
        size = sum(file.stat().st_size for file in disk.mounted.glob("day/*"))
        if size != entries:
            writes, entries = writes + 1, size
            os.sync()
    recorder.write()
    return writes, disk.written_bytes() - before


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--credentials", type=Path, required=True)
    parser.add_argument("--idle-seconds", type=float, default=60)
    options = parser.parse_args()
    size = sum(file.stat().st_size for file in options.artifact.rglob("*") if file.is_file())
    with tempfile.TemporaryDirectory() as folder, disk(Path(folder)) as flash:
        with agent(flash.mounted / "store", options.credentials) as address:
            before = flash.written_bytes()
            with ew.Board(address, credentials=options.credentials) as board:
                board.push(options.artifact)
            pushed = flash.written_bytes()
            time.sleep(options.idle_seconds)
            idle = flash.written_bytes() - pushed
        print(
            f"artifact {size / 2**20:.2f} MiB, a cold push writes {(pushed - before) / 2**20:.2f} MiB: ",
            end="",
        )
        print(f"{(pushed - before) / size:.3f} (at most 1.05)")
        print(f"an agent that rests for {options.idle_seconds:.0f} s writes {idle / 1024:.0f} KiB")
        writes, written = resting_day(flash)
        print(f"a day of its record: {writes} writes, {written / 2**20:.2f} MiB (at most 1)")


if __name__ == "__main__":
    main()
