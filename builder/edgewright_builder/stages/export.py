"""The stage `export`: the GPTQ checkpoint in the form that the engine loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright_builder.export.for_engine import export_for_engine
from edgewright_builder.fit.engines import DEFAULT_ENGINE

if TYPE_CHECKING:
    from edgewright_builder.run.build import Build
    from edgewright_builder.run.run import FinishedStage


def run_export(build: Build, quantized: FinishedStage) -> FinishedStage:
    """Runs the stage, or keeps what it left. Products: `engine` and `tokenizer`, the folders that ship."""
    serving, embedding_bits = build.recipe.serving, build.plan.configuration.embedding_bits
    modules = () if serving.adapters is None else serving.adapters.modules
    inputs = {"checkpoint": quantized.output_digest, "embedding_bits": embedding_bits}
    if modules:
        inputs["adapter_modules"] = modules
    if serving.engine != DEFAULT_ENGINE:
        inputs["engine"] = serving.engine

    def work(folder: Path) -> dict[str, Any]:
        return export_for_engine(serving.engine, quantized.folder / "model", embedding_bits, folder, modules)

    return build.run.stage("export", inputs, work, products=("engine", "tokenizer"))
