"""One running board: a QEMU process, its disks, its port for commands, and its plug to pull."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from virtual_board.initrd import sbin
from virtual_board.needs import NeedError
from virtual_board.settings import CPU, CPUS, DATA_MIB, MEMORY_MIB, Parts

AGENT_PORT = 7443  # on the board
BOOT_SECONDS = 900.0  # on a busy host
_ids = itertools.count(1)


@dataclass(frozen=True)
class Reply:
    """What a command on the board ended with."""

    code: int
    output: str


@dataclass
class Machine:
    """A board in a folder of its own. Its root is a copy on write, its data a disk under /var/lib/edgewright."""

    parts: Parts
    folder: Path
    port: int = 17443  # of the agent, on the host's loopback
    device_tree: Path | None = None
    write_log: bool = False  # log every write to the data disk, with its flushes
    memory_mib: int = MEMORY_MIB
    data_mib: int = DATA_MIB
    scratch_mib: int = 0  # of a third disk, /dev/vdc, whose content the host makes
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def prepare(self, file_system: str = "ext4", options: tuple[str, ...] = ()) -> None:
        """Makes fresh disks. Raises NeedError where this board runs."""
        if self.is_running():
            raise NeedError("A board runs already: `scripts/virtual-board off` shuts it down.")
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.iterdir():
            file.unlink()
        base, root = str(self.parts.image.resolve()), str(self.folder / "root")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", root], check=True)
        data = self.folder / "data"
        with data.open("wb") as disk:
            disk.truncate(self.data_mib * 2**20)
        if self.scratch_mib:
            with (self.folder / "scratch").open("wb") as disk:
                disk.truncate(self.scratch_mib * 2**20)
        label = "-l" if file_system == "f2fs" else "-L"
        subprocess.run([f"mkfs.{file_system}", *options, "-q", label, "data", data], env=sbin(), check=True)

    def boot(self) -> float:
        """Starts the board; returns the seconds until it carries out commands."""
        began = time.monotonic()
        log = (self.folder / "qemu.log").open("ab")
        self._process = subprocess.Popen(
            self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )  # a board outlives the command that booted it, and its terminal
        (self.folder / "pid").write_text(str(self._process.pid), encoding="ascii")
        self.run("true", seconds=BOOT_SECONDS)
        return time.monotonic() - began

    def run(self, command: str, *, seconds: float = 300.0) -> Reply:
        """Runs a command as root on the board. Raises NeedError where it does not answer in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process is not None and self._process.poll() is not None:
                raise NeedError(f"The board stopped: {self._last_words()}; see {self.folder}/console.")
            if not self.is_running():
                raise NeedError("No board runs: `scripts/virtual-board boot` boots one.")
            try:
                return self._ask(command, until - time.monotonic())
            except OSError:
                time.sleep(0.5)
        raise NeedError(f"The board did not answer within {seconds:.0f} s; see {self.folder}/console.")

    def must(self, command: str, *, seconds: float = 300.0) -> str:
        """Runs a command that has to succeed; returns its output."""
        reply = self.run(command, seconds=seconds)
        if reply.code:
            raise NeedError(f"On the board `{command}` ended with {reply.code}: {reply.output[-800:]}")
        return reply.output.strip()

    def is_running(self) -> bool:
        """Whether the board's process is there, also one that an earlier command started."""
        return self._pid() is not None

    def cut(self) -> None:
        """Pulls the plug: nothing that the board has not handed to its disk is written any more."""
        if (pid := self._pid()) is not None:
            os.kill(pid, signal.SIGKILL)
        self._wait(pid, 60)

    def power_off(self) -> None:
        """Shuts the board down in order, and waits for that."""
        pid = self._pid()
        self.run("systemctl --no-block poweroff")
        self._wait(pid, 300)

    def _pid(self) -> int | None:
        if self._process is not None:
            return None if self._process.poll() is not None else self._process.pid
        try:
            pid = int((self.folder / "pid").read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.folder / "shell") in command else None  # else another has its number

    def _last_words(self) -> str:
        """Returns the last line that QEMU printed, such as that the agent's port is taken."""
        lines = (self.folder / "qemu.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "QEMU says nothing"

    def _wait(self, pid: int | None, seconds: float) -> None:
        """Waits until the process is gone, and with it its hold on the disks. Raises NeedError."""
        until = time.monotonic() + seconds
        while pid is not None and not has_ended(pid):
            if time.monotonic() > until:
                raise NeedError(f"The board does not stop; see {self.folder}/console.")
            time.sleep(0.2)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _ask(self, command: str, seconds: float) -> Reply:
        number = next(_ids) * 1_000_000 + os.getpid()
        asked = {"id": number, "command": command, "seconds": seconds}
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(seconds)
            link.connect(str(self.folder / "shell"))
            link.sendall(json.dumps(asked).encode() + b"\n")
            received = b""
            while True:
                part = link.recv(65536)
                if not part:
                    raise ConnectionError("the board hung up")
                received += part
                *lines, received = received.split(b"\n")
                for line in lines:
                    answer = json.loads(line)
                    if answer["id"] == number:  # another is of a command whose asker has gone
                        return Reply(answer["code"], answer["output"])

    def _command(self) -> list[str]:
        folder = self.folder
        tree = [] if self.device_tree is None else ["-dtb", str(self.device_tree)]
        forward = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:{AGENT_PORT}"
        return [
            "qemu-system-aarch64", "-M", "virt", "-cpu", CPU, "-accel", "tcg,thread=multi", "-m", str(self.memory_mib),
            "-smp", str(CPUS), "-display", "none", "-monitor", "none", "-no-reboot", *tree,
            "-kernel", str(self.parts.vmlinuz), "-initrd", str(self.parts.initrd),
            "-append", "console=ttyAMA0 root=/dev/vda rw quiet",
            "-serial", f"file:{folder}/console",
            "-drive", f"if=none,id=root,file={folder}/root,format=qcow2,cache=writeback",
            "-device", "virtio-blk-pci,drive=root", *self._data_disk(), *self._scratch_disk(),
            "-netdev", forward, "-device", "virtio-net-pci,netdev=net,romfile=",
            "-chardev", f"socket,id=shell,path={folder}/shell,server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=shell,name=shell",
            "-device", "virtio-rng-pci",
        ]  # fmt: skip

    def _data_disk(self) -> list[str]:
        disk = f"driver=raw,node-name=data,file.driver=file,file.filename={self.folder}/data,cache.direct=off"
        if not self.write_log:
            return ["-blockdev", disk, "-device", "virtio-blk-pci,drive=data"]
        (self.folder / "writes").touch()
        logged = f"driver=blklogwrites,node-name=logged,file=data,log.driver=file,log.filename={self.folder}/writes"
        return ["-blockdev", disk, "-blockdev", logged, "-device", "virtio-blk-pci,drive=logged"]

    def _scratch_disk(self) -> list[str]:
        if not self.scratch_mib:
            return []
        drive = f"if=none,id=scratch,file={self.folder}/scratch,format=raw"
        return ["-drive", drive, "-device", "virtio-blk-pci,drive=scratch"]


def has_ended(pid: int) -> bool:
    """Whether a process has let go of its files: it is gone, or all that is left is what its parent may ask for.

    The first of its threads may be a zombie while others still end (proc_pid_stat(5), proc_pid_task(5)).
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return True
    return threads == 1 and status.rpartition(")")[2].split()[0] in ("Z", "X")
