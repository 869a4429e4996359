"""How far the same 4-bit model's choices differ between processors: what the golden prompt may expect of a board.

    python benchmarks/near_ties.py record ARTIFACT record.npz             greedy tokens of this processor
    python benchmarks/near_ties.py replay ARTIFACT record.npz other.npz   the same tokens, read by another one
    python benchmarks/near_ties.py replay ARTIFACT record.npz float32.npz --float32
    python benchmarks/near_ties.py compare record.npz float32.npz other.npz…

`replay` feeds the recorded tokens, so that every processor answers the same 2,048 questions: which token comes next,
and by how much it leads. It needs the board's packages alone, and goes on where it was stopped.
`scripts/virtual-board arm CPU` runs it on an emulated ARM processor.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_agent.engine_worker.model.backend import CachePlace
from edgewright_agent.engine_worker.model.onnx import OnnxBackend
from edgewright_builder.local_engine.float32 import write_float32_tree

PASSAGES = Path(__file__).parent.parent / "builder/edgewright_builder/data/general.txt"
PROMPTS, PROMPT_CHARACTERS, TOKENS = 64, 60, 32
CONTEXT_TOKENS = 128
TOP = 32  # alternatives that are kept of each step

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """What one processor said, step by step."""

    prompts: NDArray[Any]
    tokens: NDArray[np.int64]  # (prompts, tokens): what was fed
    tops: NDArray[np.int64]  # (steps, TOP): the recording processor's likeliest tokens
    log_probabilities: Floats  # (steps, TOP): of those, here
    choices: NDArray[np.int64]  # (steps,): the likeliest token here
    best: Floats  # (steps,): its log-probability

    def save(self, file: Path) -> None:
        """Writes the file whole or not at all."""
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, **vars(self))
        part.replace(file)

    @property
    def leads(self) -> Floats:
        """How far the recorded token is ahead of the best other one; negative where another is chosen."""
        others = np.maximum(
            self.log_probabilities[:, 1:].max(axis=1),
            np.where(self.choices == self.tops[:, 0], -np.inf, self.best),
        )
        leads: Floats = self.log_probabilities[:, 0] - others
        return leads


def load(file: Path) -> Steps:
    """Returns what `save` wrote."""
    with np.load(file, allow_pickle=True) as data:
        return Steps(**{name: data[name] for name in data.files})


def prompts() -> list[str]:
    """Returns the beginnings of the passages that the builder ships, cut between words."""
    passages = PASSAGES.read_text(encoding="utf-8").split("\n\n")
    starts = [
        passage.strip()[:PROMPT_CHARACTERS].rsplit(" ", 1)[0] for passage in passages if passage.strip()
    ]
    return starts[:PROMPTS]


def run(backend: OnnxBackend, prompt: str, forced: Sequence[int] | None) -> Iterator[tuple[int, Floats]]:
    """Yields the token and all log-probabilities of each step; the tokens are the likeliest, or those of `forced`."""
    place, tokens = CachePlace(0, CONTEXT_TOKENS), backend.text.encode(prompt, special=True)
    row = np.array(backend.read(place, 0, tokens, None)[-1])
    for step in range(TOKENS):
        wide = row.astype(np.float64) - row.max()
        scores: Floats = wide - np.log(np.exp(wide).sum())
        token = int(scores.argmax()) if forced is None else int(forced[step])
        yield token, scores
        if step + 1 < TOKENS:
            row = np.array(backend.step([place], [len(tokens) + step], [token], None)[0])


def walk(backend: OnnxBackend, record: Steps | None, file: Path, seconds_max: float) -> Steps:
    """Records, or replays `record`, and saves after each prompt; begins after what `file` holds."""
    done = load(file) if file.exists() else None
    texts = prompts() if record is None else [str(prompt) for prompt in record.prompts]
    began = time.monotonic()
    for index in range(0 if done is None else len(done.prompts), len(texts)):
        forced = None if record is None else [int(token) for token in record.tokens[index]]
        tops = None if record is None else record.tops[index * TOKENS : (index + 1) * TOKENS]
        part = read_prompt(backend, texts[index], forced, tops)
        done = part if done is None else joined(done, part)
        done.save(file)
        print(f"{time.monotonic() - began:7.1f} s  {index + 1} of {len(texts)} prompts", flush=True)
        if time.monotonic() - began > seconds_max:
            break
    assert done is not None
    return done


def read_prompt(
    backend: OnnxBackend, prompt: str, forced: Sequence[int] | None, tops: NDArray[np.int64] | None
) -> Steps:
    """Returns the steps of one prompt."""
    steps = list(run(backend, prompt, forced))
    scores = np.stack([row for _, row in steps])
    tops = np.argsort(-scores, axis=1, kind="stable")[:, :TOP] if tops is None else tops
    choices = scores.argmax(axis=1)
    return Steps(
        np.array([prompt], object),
        np.array([[token for token, _ in steps]]),
        tops,
        np.take_along_axis(scores, tops, axis=1),
        choices,
        np.take_along_axis(scores, choices[:, None], axis=1)[:, 0],
    )


def joined(first: Steps, second: Steps) -> Steps:
    """Returns the steps of both, in order."""
    parts = {name: np.concatenate([vars(first)[name], vars(second)[name]]) for name in vars(first)}
    return replace(first, **parts)


def compare(record: Path, float32: Path, others: Sequence[Path]) -> None:
    """Prints how often each processor chose otherwise, and how large a lead must be to be safe from that."""
    int8, wide = load(record).leads, load(float32).leads
    print(
        "| processor | tokens | chosen otherwise | largest lead that flipped | largest lower lead that flipped | ",
        end="",
    )
    print("lead moved: median / 99 % / max | lower lead undercut by: 99 % / max |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for file in (float32, *others):
        leads = load(file).leads
        count = min(len(leads), len(wide))
        leads, mine, both = leads[:count], int8[:count], np.minimum(int8, wide[: len(int8)])[:count]
        flipped, moved, under = leads < 0, np.abs(leads - mine), np.maximum(both - leads, 0)
        print(
            f"| {file.stem} | {count} | {flipped.sum()} ({100 * flipped.mean():.1f} %) | {largest(mine[flipped])} | "
            f"{largest(both[flipped & (both > 0)])} | {np.median(moved):.2f} / {np.quantile(moved, 0.99):.2f} / "
            f"{moved.max():.2f} | {np.quantile(under[both > 0], 0.99):.2f} / {under[both > 0].max():.2f} |"
        )
    both = np.minimum(int8[: len(wide)], wide)
    for limit in (0.5, 0.75, 1.0, 1.5, 2.0):
        share, of_both = (100 * (leads >= limit).mean() for leads in (int8, both))
        print(f"certain at {limit} nats: {share:.0f} % by int8, {of_both:.0f} % by both")


def largest(leads: Floats) -> str:
    """Returns the largest of them for the table."""
    return f"{leads.max():.2f}" if leads.size else "none"


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("record", "replay"):
        command = commands.add_parser(name)
        command.add_argument("artifact", type=Path)
        command.add_argument("record", type=Path)
        if name == "replay":
            command.add_argument("out", type=Path)
        command.add_argument("--float32", action="store_true", help="products in float32 instead of int8")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument(
            "--seconds", type=float, default=float("inf"), help="stop after so long; call again to go on"
        )
    command = commands.add_parser("compare")
    command.add_argument("record", type=Path)
    command.add_argument("float32", type=Path)
    command.add_argument("others", type=Path, nargs="*")
    options = parser.parse_args()
    if options.command == "compare":
        compare(options.record, options.float32, options.others)
        return
    with tempfile.TemporaryDirectory(prefix="near-ties-") as scratch:
        tree = write_float32_tree(options.artifact, Path(scratch)) if options.float32 else options.artifact
        backend = OnnxBackend(
            tree / "engine", options.artifact / "tokenizer", CONTEXT_TOKENS, options.threads
        )
        record = load(options.record) if options.command == "replay" else None
        steps = walk(backend, record, options.out if record is not None else options.record, options.seconds)
    print(f"{platform.machine()}: {len(steps.choices)} steps")


main()
