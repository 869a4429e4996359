"""A file system that records what it is asked, and disks as a power cut at any moment may leave them.

The model is POSIX at its worst: bytes are on the disk after the file was synced, names after their folder was
(LevelDB's fault_injection_test, ALICE). What was not synced may be there, missing, or torn.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from edgewright.durable import FileSystem, Pace

SECTOR_BYTES = 512


@dataclass
class File:
    """An inode: what is durable, and what was written since."""

    durable: bytes = b""
    pending: list[tuple[int, bytes]] = field(default_factory=list)

    def content(self, writes: list[tuple[int, bytes]]) -> bytes:
        data = bytearray(self.durable)
        for offset, piece in writes:
            data.extend(bytes(max(0, offset + len(piece) - len(data))))
            data[offset : offset + len(piece)] = piece
        return bytes(data)


@dataclass
class Folder:
    """A folder: names that are durable, and names as they are seen."""

    durable: dict[str, File | Folder] = field(default_factory=dict)
    seen: dict[str, File | Folder] = field(default_factory=dict)


def _nothing_happens(what: str, path: Path) -> None:
    """No fault."""


class RecordingFileSystem(FileSystem):
    """Does everything for real below `root`, and keeps a list of it. `before` each call a fault may happen."""

    def __init__(self, root: Path, before: Callable[[str, Path], None] = _nothing_happens) -> None:
        self._root = root
        self._before = before  # is told the call and its path; what it raises, the call raises
        self._names: dict[int, int] = {}  # open file → number of its inode
        self._paths: dict[int, Path] = {}  # open file → the name it was opened by
        self.numbers = itertools.count()
        self.operations: list[tuple[object, ...]] = []

    def _note(self, what: str, *details: object) -> None:
        parts = (d.relative_to(self._root).parts if isinstance(d, Path) else d for d in details)
        self.operations.append((what, *parts))

    def create(self, path: Path) -> int:
        self._before("create", path)
        file = super().create(path)
        self._name(file, path)
        self._note("create", path, self._names[file])
        return file

    def open_direct(self, path: Path) -> int:
        """Past the page cache, and no more durable for that: the disk has a cache too."""
        self._before("open", path)
        file = super().open_direct(path)
        self._name(file, path)
        self._note("open", path, self._names[file])
        return file

    def open(self, path: Path) -> int:
        self._before("open", path)
        file = super().open(path)
        self._name(file, path)
        self._note("open", path, self._names[file])
        return file

    def allocate(self, file: int, size_bytes: int) -> None:
        self._before("allocate", self._paths[file])
        super().allocate(file, size_bytes)
        self._note("write", self._names[file], 0, bytes(size_bytes))

    def write(self, file: int, data: bytes | memoryview, offset: int) -> None:
        self._before("write", self._paths[file])
        super().write(file, data, offset)
        self._note("write", self._names[file], offset, bytes(data))

    def sync_data(self, file: int) -> None:
        self._before("sync", self._paths[file])
        self._note("sync", self._names[file])

    def sync_file(self, file: int) -> None:
        self._before("sync", self._paths[file])
        self._note("sync", self._names[file])

    def sync_folder(self, path: Path) -> None:
        self._before("sync_folder", path)
        self._note("sync_folder", path)

    def rename(self, source: Path, target: Path) -> None:
        self._before("rename", target)
        super().rename(source, target)
        self._note("rename", source, target)

    def link(self, source: Path, target: Path) -> None:
        self._before("link", target)
        super().link(source, target)
        self._note("link", source, target)

    def unlink(self, path: Path) -> None:
        if path.exists() or path.is_symlink():
            self._before("unlink", path)
            self._note("unlink", path)
        super().unlink(path)

    def remove_folder(self, path: Path) -> None:
        self._before("remove_folder", path)
        super().remove_folder(path)
        self._note("unlink", path)

    def create_folder(self, path: Path) -> None:
        self._before("create_folder", path)
        super().create_folder(path)
        self._note("create_folder", path)

    def sha256_of(self, path: Path) -> str:
        self._before("read", path)
        return super().sha256_of(path)

    def sha256_on_disk(self, path: Path, pace: Pace) -> str:
        self._before("read", path)
        return super().sha256_on_disk(path, pace)

    def _name(self, file: int, path: Path) -> None:
        self._names[file], self._paths[file] = next(self.numbers), path


class Disk:
    """The disk below a recording, operation by operation; `image` is what was on it before, durably."""

    def __init__(self, image: Mapping[tuple[str, ...], bytes | None] = MappingProxyType({})) -> None:
        self._top = Folder()
        self._files: dict[int, File] = {}
        for path, data in sorted(image.items()):
            node = Folder() if data is None else File(data)
            folder = self._folder(path[:-1])
            folder.seen[path[-1]] = folder.durable[path[-1]] = node

    def apply(self, operation: tuple[object, ...]) -> None:
        what, *details = operation
        getattr(self, f"_{what}")(*details)

    def image(self, *, names: str, data: str, chance: random.Random) -> dict[tuple[str, ...], bytes | None]:
        """Path → bytes, or None for a folder. `names` and `data`: `lost`, `kept`, `torn`."""
        found: dict[tuple[str, ...], bytes | None] = {}
        chosen: dict[int, bytes] = {}

        def walk(folder: Folder, path: tuple[str, ...]) -> None:
            for name, node in sorted(_names(folder, names, chance).items()):
                if isinstance(node, Folder):
                    found[(*path, name)] = None
                    walk(node, (*path, name))
                else:
                    bytes_ = chosen.setdefault(id(node), _bytes(node, data, chance))
                    found[(*path, name)] = bytes_

        walk(self._top, ())
        return found

    def _folder(self, path: tuple[str, ...]) -> Folder:
        node: File | Folder = self._top
        for part in path:
            assert isinstance(node, Folder)
            node = node.seen[part]
        assert isinstance(node, Folder)
        return node

    def _nothing(self) -> None:
        """A call that was left out."""

    def _create(self, path: tuple[str, ...], number: int) -> None:
        self._files[number] = self._folder(path[:-1]).seen[path[-1]] = File()

    def _open(self, path: tuple[str, ...], number: int) -> None:
        node = self._folder(path[:-1]).seen[path[-1]]
        assert isinstance(node, File)
        self._files[number] = node

    def _write(self, number: int, offset: int, data: bytes) -> None:
        self._files[number].pending.append((offset, data))

    def _sync(self, number: int) -> None:
        file = self._files[number]
        file.durable, file.pending = file.content(file.pending), []

    def _sync_folder(self, path: tuple[str, ...]) -> None:
        folder = self._folder(path)
        folder.durable = dict(folder.seen)

    def _rename(self, source: tuple[str, ...], target: tuple[str, ...]) -> None:
        node = self._folder(source[:-1]).seen.pop(source[-1])
        self._folder(target[:-1]).seen[target[-1]] = node

    def _link(self, source: tuple[str, ...], target: tuple[str, ...]) -> None:
        self._folder(target[:-1]).seen[target[-1]] = self._folder(source[:-1]).seen[source[-1]]

    def _unlink(self, path: tuple[str, ...]) -> None:
        del self._folder(path[:-1]).seen[path[-1]]

    def _create_folder(self, path: tuple[str, ...]) -> None:
        self._folder(path[:-1]).seen[path[-1]] = Folder()


def _names(folder: Folder, names: str, chance: random.Random) -> dict[str, File | Folder]:
    if names == "lost":
        return folder.durable
    if names == "kept":
        return folder.seen
    both = folder.durable | folder.seen
    return {name: node for name, node in both.items() if _stays(name, folder, chance)}


def _stays(name: str, folder: Folder, chance: random.Random) -> bool:
    return folder.durable.get(name) is folder.seen.get(name) or chance.random() < 0.5


def _bytes(file: File, data: str, chance: random.Random) -> bytes:
    if data == "lost":
        return file.durable
    if data == "kept":
        return file.content(file.pending)
    sectors = [
        (offset + start, piece[start : start + SECTOR_BYTES])
        for offset, piece in file.pending
        for start in range(0, len(piece), SECTOR_BYTES)
    ]
    return file.content([sector for sector in sectors if chance.random() < 0.5])
