"""Stage 6, quantize: GPTQ to 4 bits (GPTQModel), calibrated on the generated data.

GPTQModel reads its settings from the environment when it is imported and logs to the terminal, so it runs in a child
process: `python -m edgewright_builder.stages.quantize JOB.json`.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from edgewright.durable import write_json
from edgewright.errors import OutsideError
from edgewright.tether import tethered
from edgewright_builder.models import read_config
from edgewright_builder.quantization.earlier import Earlier, require_same_shape
from edgewright_builder.run.run import last_line
from edgewright_builder.train.samples import Sample

WEIGHT_BITS = 4
PROGRESS_PATTERN = re.compile(r"layer (\d+) of (\d+) reached")


def quantize(
    model: Path,
    samples: Sequence[Sample],
    sequences: int,
    group_size: int,
    seed: int,
    folder: Path,
    on_progress: Callable[[int, int, str], None],
    earlier: Earlier | None = None,
) -> dict[str, Any]:
    """Writes `folder/model`: a GPTQ checkpoint (v1, symmetric, no act-order) of `model`.

    Calibrates on `sequences` samples drawn by `seed`, all of them where there are fewer. Against an `earlier` model
    the scales are its own, and so are the codes within the dead band. Raises InputError if the two differ in shape.
    """
    if earlier is not None:
        require_same_shape(read_config(model), group_size, None, earlier)
    drawn = random.Random(seed).sample(list(samples), min(sequences, len(samples)))  # noqa: S311 - not for secrets
    calibration = [list(sample.tokens) for sample in drawn]
    job = {
        "model": str(model.resolve()),
        "out": str((folder / "model").resolve()),
        "group_size": group_size,
        "calibration": calibration,
        "earlier": None if earlier is None else _earlier_job(earlier),
    }
    work = folder / "work"
    work.mkdir(exist_ok=True)
    write_json(work / "job.json", job)
    _run_child(work, on_progress)
    done = json.loads((work / "losses.json").read_text(encoding="utf-8"))
    losses = done["losses"]
    return {
        "group_size": group_size,
        "calibration_sequences": len(calibration),
        "calibration_tokens": sum(map(len, calibration)),
        "mean_layer_loss": math.fsum(losses) / len(losses),  # in whatever order the workers finished
        **done["delta"],
    }


def _earlier_job(earlier: Earlier) -> dict[str, Any]:
    unquantized = earlier.unquantized
    return {
        "quantized": str(earlier.quantized.resolve()),
        "unquantized": None if unquantized is None else str(unquantized.resolve()),
        "dead_band": earlier.dead_band,
    }


def _run_child(work: Path, on_progress: Callable[[int, int, str], None]) -> None:
    environment = os.environ | {
        "GPTQMODEL_CPU_WORKERS": str(max(2, os.cpu_count() or 2)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [
        *tethered(),
        sys.executable,
        "-m",
        "edgewright_builder.stages.quantize",
        str((work / "job.json").resolve()),
    ]
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
        path = work / "gptq.log"
        raise OutsideError(
            f"GPTQ failed with exit code {child.returncode}; its log {path} ends: {last_line(path)}"
        )


def _follow(lines: IO[str], log: IO[str], on_progress: Callable[[int, int, str], None]) -> None:
    for line in lines:
        if match := PROGRESS_PATTERN.search(line):  # GPTQModel's own bars share the line
            on_progress(int(match[1]), int(match[2]), "layers")
        else:
            log.write(line)


def _work(job: dict[str, Any]) -> dict[str, Any]:
    """In the child: quantizes and saves; returns the loss GPTQ reports for each linear layer, and what moved."""
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    tally = None if job["earlier"] is None else _keep_codes(job["earlier"])
    config = QuantizeConfig(
        bits=WEIGHT_BITS, group_size=job["group_size"], sym=True, desc_act=False, offload_to_disk=False,
        act_group_aware=job["earlier"] is None,  # reorders columns, as only fresh scales allow
    )  # fmt: skip
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    model = GPTQModel.load(job["model"], config, device="cuda:0" if cuda else "cpu", dtype=dtype)
    _report_layers(model)
    calibration = [
        {"input_ids": tokens, "attention_mask": [1] * len(tokens)} for tokens in job["calibration"]
    ]
    log = model.quantize(calibration, batch_size=8)
    model.save(job["out"])
    (Path(job["out"]) / "quant_log.csv").unlink(missing_ok=True)  # holds times, would change the digest
    losses = [float(row["loss"]) for row in next(iter(log.values())) if _is_number(row["loss"])]
    return {"losses": losses, "delta": {} if tally is None else tally.summary(job["earlier"]["dead_band"])}


def _keep_codes(job: dict[str, Any]) -> Any:
    from edgewright_builder.quantization.delta_aware_gptq import Checkpoint, install

    unquantized = None if job["unquantized"] is None else Checkpoint(Path(job["unquantized"]))
    return install(Checkpoint(Path(job["quantized"])), unquantized, job["dead_band"])


def _report_layers(model: Any) -> None:
    """Says on standard output when the calibration's forward passes reach each layer."""
    layers = model.model.get_decoder().layers
    seen: set[int] = set()

    def hook(index: int) -> Callable[..., None]:
        def on_forward(*_: Any) -> None:
            if index not in seen:
                seen.add(index)
                print(f"layer {index + 1} of {len(layers)} reached", flush=True)  # noqa: T201 - the parent reads it

        return on_forward

    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(hook(index))


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


if __name__ == "__main__":
    job_path = Path(sys.argv[1])
    write_json(job_path.with_name("losses.json"), _work(json.loads(job_path.read_text(encoding="utf-8"))))
