"""What a training step costs by what is known of the teacher, beside TRL's `GOLDTrainer`.

    python benchmarks/teacher_steps.py FOLDER --other GEMMA.gguf [--trl-python TRL_ENVIRONMENT/bin/python] [--rounds 3]
    python benchmarks/teacher_steps.py --losses

Whole steps, the student's model included, each kind in its own process, in turn; what a round measured stays in FOLDER,
where `teachers.py` keeps its caches, and a second call goes on. Student, teachers and kinds are those of `teachers.py`.

TRL is no dependency of the project: `distillation_speed.py` says how to make its environment, which `--trl-python` or
EDGEWRIGHT_TRL_PYTHON names. It learns from the same texts, off-policy, by the teacher alone, with the same LoRA, in
float32. Its ULD aligns tokens by their bytes (`gold, SmolLM2`), but only for byte-level tokenizers; it pairs Gemma's by
their place (`gold, Gemma`). TRL runs its teacher in every step; ours reads states that are cached once.

`--losses` measures the losses alone, on random states of the real sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teachers import BATCH_TOKENS, LEARNING_RATE, MODEL, RANK, Setting, make_student, material, pairs

if TYPE_CHECKING:
    from edgewright_builder.train.epoch import DistillationData

METHODS = ("shared", "forced", "top64", "projected", "uld")
NEEDS_OTHER = frozenset({"projected", "uld", "gold, Gemma"})
PEERS = ("gold, SmolLM2", "gold, Gemma")
STEPS, SAMPLES_OF_STEP = 5, 4
LOSS_TOKENS, LOSS_ROUNDS = 128, 3
STUDENT_VOCABULARY, OTHER_VOCABULARY, SHARED_TEXTS = 49152, 262144, 46000  # SmolLM2, Gemma 3, both
STEP_MAX, MEMORY_MAX = 1.5, 1.3  # the aims, of projected to shared
GOLD_MIN = 3.0  # the aim: a step's speed to TRL's
RATIOS = (("forced", "gold, SmolLM2"), ("projected", "gold, Gemma"), ("uld", "gold, Gemma"))


def main() -> None:
    """Measures the rounds that are missing and prints all, or is one of their processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("teachers"))
    parser.add_argument("--other", help="a teacher of another vocabulary")
    parser.add_argument("--trl-python", default=os.environ.get("EDGEWRIGHT_TRL_PYTHON"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--losses", action="store_true", help="the losses alone, in a minute")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.losses:
        run_losses()
        return
    setting = Setting(arguments.folder, Path(), arguments.other)
    setting.folder.mkdir(parents=True, exist_ok=True)
    if arguments.child:
        print(json.dumps(run_steps(setting, arguments.child)))
        return
    kinds = [*METHODS, *(PEERS if arguments.trl_python else ())]
    kinds = [kind for kind in kinds if arguments.other or kind not in NEEDS_OTHER]
    for number in range(arguments.rounds):
        for kind in kinds[:: -1 if number % 2 else 1]:
            path = setting.folder / f"steps-{kind.replace(', ', '-')}-{number}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(setting, kind, arguments)), encoding="utf-8")
    show(setting.folder, kinds)


def measured(setting: Setting, kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs one process and returns what it printed last, with the load at its end."""
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, *sys.argv, "--child", kind]
        if kind in PEERS:
            work = Path(scratch) / "work.json"
            work.write_text(
                json.dumps(peer_work(setting, kind, arguments.threads, scratch)), encoding="utf-8"
            )
            command = [arguments.trl_python, str(Path(__file__).with_name("gold_peer.py")), str(work)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind}: {result}, load {os.getloadavg()[0]:.1f}", flush=True)
    return result


def run_steps(setting: Setting, method: str) -> dict[str, Any]:
    """Returns the seconds of whole training steps, model included, and the peak of their process."""
    from edgewright_builder.models.folder import load_model
    from edgewright_builder.recipe.hyperparameters import Hyperparameters
    from edgewright_builder.recipe.model_recipe import FinetuneSettings
    from edgewright_builder.train.epoch import Training, train_epoch
    from edgewright_builder.train.lora import add_lora

    data = as_published(material(setting, method))
    data = replace(data, train=range(SAMPLES_OF_STEP * STEPS))
    how = Hyperparameters("adam", LEARNING_RATE, 0.0, RANK, 2.0, 1.0, 1.0)
    adapted = add_lora(load_model(make_student(setting)), how, 0)
    times = [time.perf_counter()]
    training = Training(data, FinetuneSettings(batch_tokens=BATCH_TOKENS), 0, lambda *_: None)
    train_epoch(adapted, training, how, lambda _: times.append(time.perf_counter()))
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": [after - before for before, after in pairwise(times)],
        "peak_bytes": peak_bytes,
        "tokens": sum(data.samples[index].counted_tokens for index in data.train),
    }


def peer_work(setting: Setting, kind: str, threads: int, scratch: str) -> dict[str, Any]:
    """Returns what TRL's process is told: the same texts in the same batches."""
    from edgewright_builder.models.folder import load_tokenizer
    from edgewright_builder.models.sources import resolve_model
    from edgewright_builder.recipe.model_recipe import PROJECTIONS
    from edgewright_builder.train.samples import chat_texts, make_batches

    source, data = resolve_model(MODEL), material(setting, "shared")
    tokenizer = load_tokenizer(source)

    def texts(index: int) -> dict[str, str]:
        sample = data.samples[index]
        answer = tokenizer.decode(sample.tokens[sample.first + 1 :])
        return {"prompt": chat_texts(tokenizer, pairs()[index])[0], "answer": answer}

    batches = make_batches(data.samples, range(SAMPLES_OF_STEP * STEPS), BATCH_TOKENS, 0)
    by_bytes = kind == PEERS[0]
    return {
        "student": str(make_student(setting)),
        "teacher": str(source if by_bytes else resolve_model(str(setting.other))),
        "by_bytes": by_bytes,
        "batches": [[texts(index) for index in batch] for batch in batches],
        "scratch": scratch,
        "threads": threads,
        "modules": list(PROJECTIONS),
        "lora_rank": RANK,
        "lora_scale": 2.0,
        "learning_rate": LEARNING_RATE,
    }


def as_published(data: DistillationData) -> DistillationData:
    """With the head of a projected teacher in bfloat16: Gemma's maker publishes it so, a GGUF file holds other bits."""
    import torch

    from edgewright_builder.train.aligned_knowledge import AlignedStates

    known = data.knowledge
    if not isinstance(known, AlignedStates) or known.method != "projected":
        return data
    return replace(data, knowledge=replace(known, head=known.head.of(slice(None), torch.bfloat16)))


def show(folder: Path, kinds: list[str]) -> None:
    """Prints medians, what they are of the shared vocabulary's, and the ratios to TRL with their aims."""
    rounds = {kind: _rounds(folder, kind) for kind in kinds}
    medians = {kind: [_median_step(one) for one in each] for kind, each in rounds.items()}
    base = statistics.median(medians["shared"])
    peaks = {kind: statistics.median(one["peak_bytes"] for one in each) for kind, each in rounds.items()}
    print("\n| step by | seconds | of shared | peak MB | of shared |\n|---|--:|--:|--:|--:|")
    for kind, seconds in medians.items():
        middle, spread = statistics.median(seconds), f"({min(seconds):.2f} to {max(seconds):.2f})"
        memory = f"{peaks[kind] / 1e6:.0f} | {peaks[kind] / peaks['shared']:.2f}"
        print(f"| {kind} | {middle:.2f} {spread} | {middle / base:.2f} | {memory} |")
    print(f"\nThe aims for projected: at most {STEP_MAX} of the time and {MEMORY_MAX} of the memory.")
    for ours, theirs in RATIOS:
        if theirs in rounds:
            _show_ratio(ours, theirs, rounds)


def _rounds(folder: Path, kind: str) -> list[dict[str, Any]]:
    paths = sorted(folder.glob(f"steps-{kind.replace(', ', '-')}-[0-9]*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _median_step(one: dict[str, Any]) -> float:
    """Returns the median of all steps but the first, which warms up."""
    return float(statistics.median(one["seconds"][1:]))


def _show_ratio(ours: str, theirs: str, rounds: dict[str, list[dict[str, Any]]]) -> None:
    pairs_of_rounds = list(zip(rounds[ours], rounds[theirs], strict=False))
    speeds = [_median_step(other) / _median_step(one) for one, other in pairs_of_rounds]
    memory = statistics.median(one["peak_bytes"] / other["peak_bytes"] for one, other in pairs_of_rounds)
    print(
        f"{ours} to TRL's {theirs}: {statistics.median(speeds):.2f} × the speed ({min(speeds):.2f} to "
        f"{max(speeds):.2f}; aim {GOLD_MIN}), {memory:.2f} × the memory"
    )


def run_losses() -> None:
    """Prints the loss and its gradient alone at the real sizes, in turn, by processor time: states are random."""
    methods = random_losses()
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(LOSS_ROUNDS):
        for name, loss in methods.items():
            started = time.process_time()
            loss().backward()
            seconds[name].append(time.process_time() - started)
    base = min(seconds["shared"])
    for name, values in seconds.items():
        print(f"{name}: {min(values):.2f} s of processor time, {min(values) / base:.2f} of shared")


def random_losses() -> dict[str, Callable[[], Any]]:
    """Returns what computes each method's loss, on random states of the real sizes."""
    import torch

    from edgewright_builder.train.cross_vocabulary import (
        Letters,
        compared_loss,
        letter_distribution,
        projected_kl,
        uld,
    )
    from edgewright_builder.train.distillation_losses import distillation_loss
    from edgewright_builder.train.output_head import OutputHead
    from edgewright_builder.train.top_k_losses import TopAnswers, top_k_kl

    torch.manual_seed(0)
    hidden, labels = torch.randn(LOSS_TOKENS, 576, requires_grad=True), torch.zeros(LOSS_TOKENS).long()
    head, same = (OutputHead(0.05 * torch.randn(STUDENT_VOCABULARY, 576)) for _ in range(2))
    larger, every = OutputHead(0.05 * torch.randn(OTHER_VOCABULARY, 640)), torch.arange(LOSS_TOKENS)
    published = larger.of(slice(None), torch.bfloat16)
    states, others = torch.randn(LOSS_TOKENS, 576), torch.randn(LOSS_TOKENS, 640)
    own = Letters(torch.arange(STUDENT_VOCABULARY), torch.arange(STUDENT_VOCABULARY), STUDENT_VOCABULARY + 1)
    sides = [torch.arange(size) % SHARED_TEXTS for size in (STUDENT_VOCABULARY, OTHER_VOCABULARY)]
    both, best = Letters(sides[0], sides[1], SHARED_TEXTS + 1), same.logits(states).log_softmax(-1).topk(64)
    named = TopAnswers(best.indices, best.values)
    chunk = 2 * STUDENT_VOCABULARY * 128 // (STUDENT_VOCABULARY + OTHER_VOCABULARY)
    return {
        "shared": lambda: distillation_loss(hidden, head, states, same, labels, 1.0, 1.0),
        "forced": lambda: compared_loss(
            hidden, head, labels, every, lambda rows: letter_distribution(same, states[rows], own, 1.0),
            projected_kl(own, 1.0), 1.0,
        ),
        "top64": lambda: compared_loss(
            hidden, head, labels, every, named.__getitem__, top_k_kl(1.0, None), 1.0
        ),
        "projected": lambda: compared_loss(
            hidden, head, labels, every, lambda rows: letter_distribution(published, others[rows], both, 1.0),
            projected_kl(both, 1.0), 1.0,
        ),
        "uld": lambda: compared_loss(
            hidden, head, labels, every, lambda rows: larger.logits(others[rows]), uld(1.0), 1.0, chunk
        ),
    }  # fmt: skip


if __name__ == "__main__":
    main()
