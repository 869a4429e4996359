"""The stage `quantize`: GPTQ (GPTQModel) or AutoRound to 4 bits, calibrated on pairs and general text.

Each has a process of its own, and both leave a checkpoint of one kind: GPTQ v1, symmetric, without act-order.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgewright.die_with_parent import tethered
from edgewright.errors import OutsideError
from edgewright_builder.models.folder import read_config
from edgewright_builder.quantization.autoround_process import AutoRoundJob, equal_sequences, learning_rate_of
from edgewright_builder.quantization.calibration import (
    TOKENS_ADVISED,
    CalibrationTexts,
    packed_calibration,
    random_tokens_like,
    sampled_calibration,
)
from edgewright_builder.quantization.earlier_model import Earlier, earlier_model, require_same_shape
from edgewright_builder.quantization.gptq_process import BEST_OPTIONS, GptqJob, GptqOptions, earlier_job
from edgewright_builder.quantization.layer_progress import PATTERN
from edgewright_builder.run.resumable_run import child_fault
from edgewright_builder.stages.general_text import general_digest, general_samples, split_general
from edgewright_builder.stages.search import read_best
from edgewright_builder.stages.teacher import sample_inputs, samples_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgewright_builder.recipe.model_recipe import QuantizeSettings, Recipe
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.progress import OnProgress
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.samples import Sample


def run_quantize(
    build: Build, data: FinishedStage, finetuned: FinishedStage, search: FinishedStage
) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `model`, a GPTQ checkpoint."""
    recipe, group_size = build.recipe, read_best(search).group_size
    inputs = {
        "model": finetuned.output_digest,
        "data": data.output_digest,
        "calibration": [recipe.quantize.calibration_tokens, recipe.quantize.general_share],
        "general": general_digest(_general_file(recipe), recipe.quantize.general_share),
        **sample_inputs(build.distillation),
        "validation_fraction": recipe.finetune.validation_fraction,
        **method_inputs(recipe.quantize),
        "group_size": group_size,
        "seed": recipe.seed,
    }
    earlier = earlier_of(recipe)
    if earlier is not None:
        inputs["earlier"] = [earlier.digest, earlier.dead_band]
    if recipe.quantize.calibration_samples is not None:
        inputs["calibration_samples"] = recipe.quantize.calibration_samples
    if recipe.quantize.calibration_source != "text":
        inputs["calibration_source"] = recipe.quantize.calibration_source

    def work(folder: Path) -> dict[str, Any]:
        sequences = calibration_of(build, data)
        job = Quantization(finetuned.folder / "model", group_size, sequences, earlier)
        if recipe.quantize.method == "autoround":
            return autoround(
                job, recipe.quantize.autoround_steps, recipe.seed, folder, build.run.reporter.step
            )
        return quantize(job, folder, build.run.reporter.step)

    return build.run.stage("quantize", inputs, work, products=("model",))


def method_inputs(settings: QuantizeSettings) -> dict[str, Any]:
    """Returns what of the method decides the checkpoint."""
    if settings.method == "autoround":
        steps = settings.autoround_steps
        return {"method": "autoround", "steps": steps, "learning_rate": learning_rate_of(steps)}
    return {"options": asdict(BEST_OPTIONS)}


def earlier_of(recipe: Recipe) -> Earlier | None:
    """Returns the model whose codes are kept where they can be; None unless the recipe names one."""
    settings = recipe.quantize
    return None if settings.delta_from is None else earlier_model(settings.delta_from, settings.dead_band)


def calibration_of(build: Build, data: FinishedStage) -> list[list[int]]:
    """Returns the sequences that GPTQ calibrates on; says so where they are fewer than asked for or than advised."""
    sequences = _calibration(_calibration_texts(build, data), build.recipe)
    if build.recipe.quantize.calibration_source == "random":
        sequences = random_tokens_like(sequences, _vocabulary(build.distillation.student), build.recipe.seed)
    if lack := _lack(sum(map(len, sequences)), build.recipe.quantize):
        build.run.reporter.note(lack)
    return sequences


def _calibration_texts(build: Build, data: FinishedStage) -> CalibrationTexts:
    """Returns what the recipe lets GPTQ see: pairs and general text, neither of them held out."""
    from edgewright_builder.train.samples import split

    recipe, student = build.recipe, build.distillation.student
    samples = samples_of(build.distillation, data)
    train, _ = split(samples, recipe.finetune.validation_fraction, recipe.seed)
    general: Sequence[Sample] = ()
    if recipe.quantize.general_share > 0:
        general = general_samples(student, _general_file(recipe), recipe.finetune.sequence_tokens)
    general_train, _ = split_general(general, recipe.seed)
    return CalibrationTexts(
        [samples[index].tokens for index in train], [general[index].tokens for index in general_train]
    )


def _calibration(texts: CalibrationTexts, recipe: Recipe) -> list[list[int]]:
    settings, limit = recipe.quantize, recipe.finetune.sequence_tokens
    if settings.calibration_samples is not None:
        count = settings.calibration_samples
        return sampled_calibration(texts, count, settings.general_share, limit, recipe.seed)
    return packed_calibration(texts, settings.calibration_tokens, settings.general_share, limit, recipe.seed)


def _lack(tokens: int, settings: QuantizeSettings) -> str:
    """Returns a sentence where the tokens are fewer than asked for or than advised; else nothing."""
    asked = settings.calibration_tokens
    if settings.calibration_samples is not None or tokens >= min(asked, TOKENS_ADVISED):
        return ""
    return (
        f"quantize: {tokens:,} tokens to calibrate on, {asked:,} are asked for and {TOKENS_ADVISED:,} advised; "
        "give more pairs, or general text by `quantize.general_share` and `quantize.general_data`"
    )


def _general_file(recipe: Recipe) -> Path | None:
    """Returns the file of the general text that GPTQ calibrates on; None for what is shipped."""
    return recipe.quantize.general_data or recipe.recover.data


def _vocabulary(student: Path) -> list[int]:
    """Returns the tokens of text, without those that have a meaning of their own."""
    from edgewright_builder.models.folder import load_tokenizer

    tokenizer = load_tokenizer(student)
    special = set(tokenizer.all_special_ids)
    return [token for token in range(tokenizer.vocab_size) if token not in special]


@dataclass(frozen=True)
class Quantization:
    """What is quantized, in which groups, on which token sequences, and against which earlier model."""

    model: Path
    group_size: int
    calibration: list[list[int]]
    earlier: Earlier | None = None
    options: GptqOptions = BEST_OPTIONS


def quantize(quantization: Quantization, folder: Path, on_progress: OnProgress) -> dict[str, Any]:
    """Writes `folder/model`: a GPTQ checkpoint (v1, symmetric, no act-order).

    Against an earlier model the scales are its own, and so are the codes within the dead band. Raises InputError if
    the two differ in shape, OutsideError if GPTQModel fails.
    """
    model, earlier, calibration = quantization.model, quantization.earlier, quantization.calibration
    if earlier is not None:
        require_same_shape(read_config(model), quantization.group_size, None, earlier)
    job = GptqJob(
        model=str(model.resolve()),
        out=str((folder / "model").resolve()),
        group_size=quantization.group_size,
        calibration=calibration,
        earlier=None if earlier is None else earlier_job(earlier),
        options=quantization.options,
    )
    work = _run_process("GPTQ", job, folder, on_progress)
    done = json.loads((work / "losses.json").read_text(encoding="utf-8"))
    losses = done["losses"]
    return {
        "group_size": quantization.group_size,
        "calibration_sequences": len(calibration),
        "calibration_tokens": sum(map(len, calibration)),
        "mean_layer_loss": math.fsum(losses) / len(losses),  # in whatever order the workers finished
        **done["delta"],
    }


def autoround(
    quantization: Quantization, steps: int, seed: int, folder: Path, on_progress: OnProgress
) -> dict[str, Any]:
    """Writes `folder/model`, the same kind of checkpoint as `quantize`, by `steps` of training for each layer.

    Raises OutsideError if AutoRound fails.
    """
    sequences = equal_sequences(quantization.calibration)
    job = AutoRoundJob(
        model=str(quantization.model.resolve()),
        out=str((folder / "model").resolve()),
        group_size=quantization.group_size,
        calibration=sequences,
        steps=steps,
        learning_rate=learning_rate_of(steps),
        seed=seed,
    )
    _run_process("AutoRound", job, folder, on_progress)
    return {
        "method": "autoround",
        "steps": steps,
        "group_size": quantization.group_size,
        "calibration_sequences": len(sequences),
        "calibration_tokens": sum(map(len, sequences)),
    }


def _run_process(name: str, job: GptqJob | AutoRoundJob, folder: Path, on_progress: OnProgress) -> Path:
    """Has the process of that name do the job; returns the folder of its notes. Raises OutsideError if it fails."""
    work, program = folder / "work", name.lower()
    work.mkdir(exist_ok=True)
    job.write(work / "job.json")
    environment = os.environ | {
        "GPTQMODEL_CPU_WORKERS": str(max(2, os.cpu_count() or 2)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    module = f"edgewright_builder.quantization.{program}_process"
    command = [*tethered(), sys.executable, "-m", module, str((work / "job.json").resolve())]
    with (
        (work / f"{program}.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=work
        ) as child,  # both libraries write folders of logs where they stand
    ):
        assert child.stdout is not None
        try:
            _follow(child.stdout, log, on_progress)
        except BaseException:  # Ctrl-C, a full disk: the child must not go on alone
            child.kill()
            raise
    if child.returncode != 0:
        raise OutsideError(child_fault(name, child.returncode, work / f"{program}.log"))
    return work


def _follow(lines: IO[str], log: IO[str], on_progress: OnProgress) -> None:
    for line in lines:
        if match := PATTERN.search(line):  # the library's own bars share the line
            on_progress(int(match[1]), int(match[2]), "layers")
        else:
            log.write(line)
