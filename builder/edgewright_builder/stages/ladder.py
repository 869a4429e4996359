"""The stage `ladder`: how far each model of the build is from the teacher and from the 16-bit fine-tuned model.

Every figure is a KL divergence at temperature 1 on the held-out pairs, so that each step of the build can be seen:
pruning, distillation, GPTQ, recovery, export.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.stages.recover import shipped
from edgewright_builder.stages.teacher import training_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgewright_builder.fit.engines.traits import Format
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.epoch import DistillationData, Divergence, Training


@dataclass(frozen=True)
class Rungs:
    """The stages whose models are compared, in the order of their making."""

    student: FinishedStage
    finetuned: FinishedStage
    quantized: FinishedStage
    recovered: FinishedStage
    exported: FinishedStage


def run_ladder(build: Build, data: FinishedStage, teacher: FinishedStage, rungs: Rungs) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `ladder.json`."""
    inputs = {
        "data": data.output_digest,
        "teacher": teacher.output_digest,
        "models": {name: getattr(rungs, name).output_digest for name in vars(rungs)},
        "validation_fraction": build.recipe.finetune.validation_fraction,
        "seed": build.recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        return climb(training_of(build.distillation, data, teacher), rungs, build, folder)

    return build.run.stage("ladder", inputs, work, products=("ladder.json",))


def climb(training: Training, rungs: Rungs, build: Build, folder: Path) -> dict[str, Any]:
    """Writes `ladder.json`: for each model its KL to the teacher and to the fine-tuned model. Returns the latter."""
    from edgewright_builder.models.folder import load_model
    from edgewright_builder.quantization.gptq_checkpoint import load_dequantized

    batch_tokens = training.settings.batch_tokens
    to_teacher, finetuned = training.data, load_model(rungs.finetuned.folder / "model")
    to_finetuned = _towards(finetuned, training)
    entries = [
        _entry("student", load_model(rungs.student.folder / "model"), to_teacher, None, batch_tokens),
        _entry("finetuned", finetuned, to_teacher, None, batch_tokens),
    ]
    del finetuned
    for name in ("quantized", "recovered"):
        checkpoint = getattr(rungs, name).folder / "model"
        if checkpoint.is_dir():
            model = load_dequantized(checkpoint)
            entries.append(_entry(name, model, to_teacher, to_finetuned, batch_tokens))
    engine, exported = engine_traits(build.recipe.serving.engine), rungs.exported.folder / "engine"
    if engine.format == "onnx":  # whose logits this process can compute
        entries.append(_exported(exported, to_teacher, to_finetuned))
    else:
        model = _exported_weights(engine.format, rungs)
        entries.append(_entry("exported", model, to_teacher, to_finetuned, batch_tokens))
    write_json(folder / "ladder.json", entries)
    distances = {entry["model"]: entry["to_finetuned"] for entry in entries if entry["to_finetuned"]}
    return {f"{model} from 16 bits": distance["mean"] for model, distance in distances.items()}


def _towards(model: nn.Module, training: Training) -> DistillationData:
    """Returns the same samples with `model` as their teacher; its states of the held-out ones stay in memory."""
    from edgewright_builder.train.epoch import knowledge_of

    data = training.data
    return replace(data, knowledge=knowledge_of(model, data.samples, data.validation, data.pad_token))


def _entry(
    name: str,
    model: nn.Module,
    to_teacher: DistillationData,
    to_finetuned: DistillationData | None,
    batch_tokens: int,
) -> dict[str, Any]:
    from edgewright_builder.train.epoch import divergences_to

    teachers = [data.knowledge for data in (to_teacher, to_finetuned) if data is not None]
    return _document(name, *divergences_to(teachers, model, to_teacher, batch_tokens))


def _exported(engine: Path, to_teacher: DistillationData, to_finetuned: DistillationData) -> dict[str, Any]:
    """Returns the entry of the exported graph, whose logits ONNX Runtime computes."""
    from edgewright_builder.scoring.onnx_logits import open_logits
    from edgewright_builder.train.epoch import logits_divergences

    logits_of = open_logits(engine)

    def counted(index: int) -> Tensor:
        sample = to_teacher.samples[index]
        return logits_of(sample.tokens[:-1])[sample.first :]  # the last token is only predicted

    teachers = [to_teacher.knowledge, to_finetuned.knowledge]
    return _document("exported", *logits_divergences(teachers, counted, to_teacher))


def _exported_weights(form: Format, rungs: Rungs) -> nn.Module:
    """Returns the weights of an export that this process can't run, in floats. What an engine adds by its own
    arithmetic does not show.
    """
    engine = rungs.exported.folder / "engine"
    if form == "gguf":
        from edgewright_builder.export.gguf.model import load_exported

        return load_exported(
            shipped(rungs.quantized, rungs.recovered).folder / "model", engine / "model.gguf"
        )
    from edgewright_builder.quantization.gptq_checkpoint import load_dequantized

    return load_dequantized(engine)


def _document(name: str, to_teacher: Divergence, to_finetuned: Divergence | None = None) -> dict[str, Any]:
    nearer = None if to_finetuned is None else asdict(to_finetuned)
    return {"model": name, "to_teacher": asdict(to_teacher), "to_finetuned": nearer}
