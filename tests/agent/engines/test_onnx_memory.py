"""The ONNX Runtime worker holds no memory it does not need."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from edgewright_agent.engine_worker.model import onnx
from edgewright_agent.engine_worker.model.weights import (
    find_mapped_weights,
    restart_high_water_mark,
    trim_heap,
)
from tests.support.engine_releases import CONTEXT_TOKENS, Release

RECORDED = """\
7f0000000000-7f0000100000 rw-p 00000000 fe:00 12    {file}
Rss:                1024 kB
Anonymous:             0 kB
7f0000100000-7f0000200000 rw-p 00100000 fe:00 12    {file}
Anonymous:             4 kB
7f0000200000-7f0000300000 rw-s 00200000 fe:00 12    {file}
Anonymous:             0 kB
7f0000300000-7f0000400000 rw-p 00000000 00:00 0
Anonymous:          1024 kB
7f0000400000-7f0000500000 r-xp 00000000 fe:00 13    /usr/lib/libc.so.6
Anonymous:             0 kB
"""


def resident_kib(file: Path) -> int:
    """RSS of the file's mappings in this process."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith(str(file))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_only_private_mappings_of_the_file_that_nobody_wrote_to_are_let_go(tmp_path: Path) -> None:
    file, smaps = tmp_path / "model.onnx.data", tmp_path / "smaps"
    smaps.write_text(RECORDED.format(file=file), encoding="utf-8")
    assert find_mapped_weights(file, smaps).ranges == ((0x7F0000000000, 2**20),)


def test_released_pages_leave_memory_and_come_back_when_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    content = bytes(range(256)) * 4096
    file.write_bytes(content)
    with file.open("rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    assert mapped[:] == content
    assert resident_kib(file) == len(content) // 1024
    find_mapped_weights(file).release()
    assert resident_kib(file) == 0
    assert mapped[:] == content
    mapped.close()


def test_a_loaded_model_keeps_none_of_its_file_in_memory(tiny_onnx: Release) -> None:
    engine, tokenizer = tiny_onnx.tree / "engine", tiny_onnx.tree / "tokenizer"
    backend = onnx.OnnxBackend(engine, tokenizer, CONTEXT_TOKENS, threads=1)
    assert resident_kib((engine / "model.onnx.data").resolve()) == 0
    assert backend.text is not None


async def test_large_blocks_go_back_to_the_kernel(tiny_onnx: Release) -> None:
    async with tiny_onnx.running() as engine:
        environment = Path(f"/proc/{engine.pid}/environ").read_bytes().split(b"\0")
    assert b"MALLOC_MMAP_THRESHOLD_=1048576" in environment
    assert b"MALLOC_ARENA_MAX=2" in environment


def test_a_new_high_water_mark_begins_where_memory_is_now() -> None:
    def high_water_kib() -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    block = bytearray(64 * 2**20)
    with_block = high_water_kib()
    del block
    trim_heap()
    restart_high_water_mark()
    if high_water_kib() == with_block:
        pytest.skip("this kernel does not let a process restart its own mark")
    assert high_water_kib() < with_block - 32 * 1024
