"""What a board makes of a release before an engine can load it, once per release and version of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.engines.process.death import LogWords

PREPARED = "prepared"  # a folder beside the release's tree, outside what its manifest lists


@dataclass(frozen=True)
class EnginePreparation:
    """How it is made: by a process that fills a folder, and ends with 0 once that is complete."""

    key: str  # names all that the result depends on beside the release: a folder's name
    what: str  # for people, such as "TensorRT Edge-LLM 0.11.0 with TensorRT 10.16.0.72"
    command: Callable[[Path], Sequence[str]]  # that fills this folder
    environment: Mapping[str, str]
    step_of: Callable[[str], str | None]  # what it does from now on, of a line of its output
    words: LogWords


def prepared_folder(tree: Path, key: str) -> Path:
    """Returns where the result of a preparation lies once it is complete."""
    return tree.parent / PREPARED / key
