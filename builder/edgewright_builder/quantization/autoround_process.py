"""The process that quantizes by AutoRound: `python -m edgewright_builder.quantization.autoround_process JOB.json`.

AutoRound trains the rounding of each layer's weights, and the range of their groups, by signed gradients, until the
layer answers as it did in 16 bits (Cheng et al., arXiv 2309.05516). It writes the same kind of checkpoint as GPTQ. The
package logs to the terminal and keeps settings of the process, so it has a process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgewright.durable import write_json
from edgewright_builder.quantization.checkpoint_config import keep_configuration, keep_generation
from edgewright_builder.quantization.layer_progress import report_layers

WEIGHT_BITS = 4
LEARNING_RATE_MAX = 5e-3  # of the rounding, in steps of the grid; what its recipe `light` takes for 50 steps


@dataclass(frozen=True)
class AutoRoundJob:
    """What the process is to do, as `job.json` holds it."""

    model: str  # folder of the checkpoint to quantize
    out: str  # folder for the quantized one
    group_size: int
    calibration: list[list[int]]  # token sequences of one length
    steps: int  # of each layer's training
    learning_rate: float  # of the rounding, in steps of the grid
    seed: int

    def write(self, path: Path) -> None:
        """Writes the job durably."""
        write_json(path, asdict(self))


def learning_rate_of(steps: int) -> float:
    """Returns the rate for so many steps: with 1 / steps, the package's own rule, an offset can cross half the grid."""
    return min(LEARNING_RATE_MAX, 1 / steps)


def equal_sequences(sequences: list[list[int]]) -> list[list[int]]:
    """Returns as many sequences of one length, the mean, as AutoRound leaves out what is shorter than others.

    At the end fewer tokens than there are sequences are left over.
    """
    tokens = [token for sequence in sequences for token in sequence]
    length = len(tokens) // len(sequences)
    return [tokens[place * length : (place + 1) * length] for place in range(len(sequences))]


def run_autoround(job: AutoRoundJob) -> None:
    """Quantizes and saves."""
    import torch
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from edgewright_builder.quantization.layer_inputs import keep_layer_inputs

    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype)
    layers = model.get_decoder().layers
    keep_layer_inputs(model, layers, job.calibration)
    report_layers(layers)
    tuner = AutoRound(
        model, AutoTokenizer.from_pretrained(job.model), scheme="W4A16", group_size=job.group_size, sym=True,
        iters=job.steps, lr=job.learning_rate, seed=job.seed, nsamples=len(job.calibration),
        seqlen=len(job.calibration[0]), amp=cuda, enable_torch_compile=False, device_map=0 if cuda else "cpu",
        dataset=[{"input_ids": torch.tensor([tokens])} for tokens in job.calibration],
    )  # fmt: skip
    out = Path(job.out)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        tuner.quantize_and_save(scratch, format="auto_gptq")
        (written,) = Path(scratch).iterdir()  # a folder that AutoRound names after the model
        written.rename(out)
    (out / "quantization_config.json").unlink(missing_ok=True)  # what config.json says as well
    keep_configuration(Path(job.model), out, _settings(job))
    keep_generation(Path(job.model), out)


def _settings(job: AutoRoundJob) -> dict[str, Any]:
    """Returns the settings as GPTQModel writes them, so that all readers of GPTQ take the checkpoint."""
    return {
        "bits": WEIGHT_BITS, "group_size": job.group_size, "sym": True, "desc_act": False, "lm_head": False,
        "quant_method": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32",
        "meta": {"quantizer": [f"auto-round:{version('auto-round')}"]},
    }  # fmt: skip


if __name__ == "__main__":
    run_autoround(AutoRoundJob(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
