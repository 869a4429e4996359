"""The process that quantizes: `python -m edgewright_builder.quantization.gptq_process JOB.json`.

GPTQModel reads its settings from the environment when it is imported and logs to the terminal, so it has a process of
its own. That process writes `losses.json` beside the job and says on standard output how far it is.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright_builder.quantization.checkpoint_config import keep_generation, keep_positions
from edgewright_builder.quantization.layer_progress import report_layers

if TYPE_CHECKING:
    from edgewright_builder.quantization.delta_aware_gptq import CodeChanges
    from edgewright_builder.quantization.earlier_model import Earlier

WEIGHT_BITS = 4


@dataclass(frozen=True)
class GptqOptions:
    """How GPTQModel rounds. The defaults are what won in docs/quantization.md's table."""

    act_group_aware: bool = (
        True  # the inputs that calibration excites most are rounded first, within their groups
    )
    damp_percent: float = 0.05  # of the Hessian's mean diagonal, added to it
    mse: float = (
        0.0  # the power of the error that each group's scale is searched for; 0: the scale is max|w| / 7.5
    )
    foem_beta: float = 0.0  # weight of the first-order term (FOEM, Zheng et al., AAAI 2026); 0: plain GPTQ
    true_sequential: bool = True  # a layer's projections see those before them rounded
    batch_sequences: int = 8  # in one forward pass


BEST_OPTIONS = GptqOptions()


@dataclass(frozen=True)
class GptqJob:
    """What the process is to do, as `job.json` holds it."""

    model: str  # folder of the checkpoint to quantize
    out: str  # folder for the quantized one
    group_size: int
    calibration: list[list[int]]  # token sequences
    earlier: dict[str, Any] | None  # folders of the earlier model, and its dead band
    options: GptqOptions = BEST_OPTIONS

    def write(self, path: Path) -> None:
        """Writes the job durably."""
        write_json(path, asdict(self))


def read_job(path: Path) -> GptqJob:
    """Returns the job that `GptqJob.write` left."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return GptqJob(**values | {"options": GptqOptions(**values["options"])})


def earlier_job(earlier: Earlier) -> dict[str, Any]:
    """Returns the earlier model as `job.json` holds it."""
    unquantized = earlier.unquantized
    return {
        "quantized": str(earlier.quantized.resolve()),
        "unquantized": None if unquantized is None else str(unquantized.resolve()),
        "dead_band": earlier.dead_band,
    }


def run_gptq(job: GptqJob) -> dict[str, Any]:
    """Quantizes and saves. Returns the loss that GPTQ reports for each linear layer, and what moved."""
    import torch
    from gptqmodel import GPTQModel

    from edgewright_builder.quantization.layer_inputs import keep_layer_inputs
    from edgewright_builder.quantization.memoized_products import Products, install

    products = Products()
    install(products)
    changes = None if job.earlier is None else _keep_codes(job.earlier)
    config, cuda = _config(job), torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    model = GPTQModel.load(job.model, config, device="cuda:0" if cuda else "cpu", dtype=dtype)
    layers = model.model.get_decoder().layers
    keep_layer_inputs(model.model, layers, job.calibration)
    report_layers(layers, products.clear)
    calibration = [{"input_ids": tokens, "attention_mask": [1] * len(tokens)} for tokens in job.calibration]
    log = model.quantize(calibration, batch_size=job.options.batch_sequences)
    model.save(job.out)
    keep_positions(Path(job.model), Path(job.out))
    keep_generation(Path(job.model), Path(job.out))
    (Path(job.out) / "quant_log.csv").unlink(missing_ok=True)  # holds times, would change the digest
    losses = [float(row["loss"]) for row in next(iter(log.values())) if _is_number(row["loss"])]
    delta = {} if changes is None or job.earlier is None else changes.summary(job.earlier["dead_band"])
    return {"losses": losses, "delta": delta}


def _config(job: GptqJob) -> Any:
    from gptqmodel import QuantizeConfig
    from gptqmodel.quantization.config import FOEMConfig

    options = job.options
    return QuantizeConfig(
        bits=WEIGHT_BITS, group_size=job.group_size, sym=True, desc_act=False, offload_to_disk=False,
        act_group_aware=options.act_group_aware and job.earlier is None,  # reorders columns: fresh scales alone
        damp_percent=options.damp_percent, mse=options.mse, true_sequential=options.true_sequential,
        foem=FOEMConfig(alpha=0.0, beta=options.foem_beta) if options.foem_beta else None,
    )  # fmt: skip


def _keep_codes(earlier: dict[str, Any]) -> CodeChanges:
    from edgewright_builder.quantization.delta_aware_gptq import Checkpoint, install

    unquantized = None if earlier["unquantized"] is None else Checkpoint(Path(earlier["unquantized"]))
    return install(Checkpoint(Path(earlier["quantized"])), unquantized, earlier["dead_band"])


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


if __name__ == "__main__":
    job_path = Path(sys.argv[1])
    write_json(job_path.with_name("losses.json"), run_gptq(read_job(job_path)))
