"""The stage `quantize`: GPTQ to 4 bits (GPTQModel), calibrated on the data, in a process of its own."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgewright.errors import OutsideError
from edgewright.tether import tethered
from edgewright_builder.models import read_config
from edgewright_builder.quantization.earlier import Earlier, earlier_model, require_same_shape
from edgewright_builder.quantization.gptq_process import GptqJob, earlier_job
from edgewright_builder.run.run import child_fault
from edgewright_builder.stages.search import read_best
from edgewright_builder.stages.teacher import samples_of

if TYPE_CHECKING:
    from edgewright_builder.recipe.model import Recipe
    from edgewright_builder.run.build import Build
    from edgewright_builder.run.progress import OnProgress
    from edgewright_builder.run.run import FinishedStage

PROGRESS_PATTERN = re.compile(r"layer (\d+) of (\d+) reached")


def run_quantize(
    build: Build, data: FinishedStage, finetuned: FinishedStage, search: FinishedStage
) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `model`, a GPTQ checkpoint."""
    recipe, group_size = build.recipe, read_best(search).group_size
    inputs = {
        "model": finetuned.output_digest,
        "data": data.output_digest,
        "sequences": recipe.quantize.calibration_sequences,
        "group_size": group_size,
        "seed": recipe.seed,
    }
    earlier = earlier_of(recipe)
    if earlier is not None:
        inputs["earlier"] = [earlier.digest, earlier.dead_band]

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.train.samples import split

        samples = samples_of(build.distillation, data)
        train, _ = split(samples, recipe.finetune.validation_fraction, recipe.seed)
        sequences = draw(
            [samples[index].tokens for index in train], recipe.quantize.calibration_sequences, recipe.seed
        )
        job = Quantization(finetuned.folder / "model", group_size, sequences, earlier)
        return quantize(job, folder, build.run.reporter.step)

    return build.run.stage("quantize", inputs, work, products=("model",))


def earlier_of(recipe: Recipe) -> Earlier | None:
    """Returns the model whose codes are kept where they can be; None unless the recipe names one."""
    settings = recipe.quantize
    return None if settings.delta_from is None else earlier_model(settings.delta_from, settings.dead_band)


def draw(sequences: Sequence[Sequence[int]], count: int, seed: int) -> list[list[int]]:
    """Returns `count` token sequences drawn by `seed`, all of them where there are fewer."""
    drawn = random.Random(seed).sample(list(sequences), min(count, len(sequences)))  # noqa: S311 - not for secrets
    return [list(tokens) for tokens in drawn]


@dataclass(frozen=True)
class Quantization:
    """What is quantized, in which groups, on which token sequences, and against which earlier model."""

    model: Path
    group_size: int
    calibration: list[list[int]]
    earlier: Earlier | None = None


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
    )
    work = folder / "work"
    work.mkdir(exist_ok=True)
    job.write(work / "job.json")
    _run_process(work, on_progress)
    done = json.loads((work / "losses.json").read_text(encoding="utf-8"))
    losses = done["losses"]
    return {
        "group_size": quantization.group_size,
        "calibration_sequences": len(calibration),
        "calibration_tokens": sum(map(len, calibration)),
        "mean_layer_loss": math.fsum(losses) / len(losses),  # in whatever order the workers finished
        **done["delta"],
    }


def _run_process(work: Path, on_progress: OnProgress) -> None:
    environment = os.environ | {
        "GPTQMODEL_CPU_WORKERS": str(max(2, os.cpu_count() or 2)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    module = "edgewright_builder.quantization.gptq_process"
    command = [*tethered(), sys.executable, "-m", module, str((work / "job.json").resolve())]
    with (
        (work / "gptq.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=work
        ) as child,  # GPTQModel writes a folder of logs where it stands
    ):
        assert child.stdout is not None
        try:
            _follow(child.stdout, log, on_progress)
        except BaseException:  # Ctrl-C, a full disk: the child must not go on alone
            child.kill()
            raise
    if child.returncode != 0:
        raise OutsideError(child_fault("GPTQ", child.returncode, work / "gptq.log"))


def _follow(lines: IO[str], log: IO[str], on_progress: OnProgress) -> None:
    for line in lines:
        if match := PROGRESS_PATTERN.search(line):  # GPTQModel's own bars share the line
            on_progress(int(match[1]), int(match[2]), "layers")
        else:
            log.write(line)
