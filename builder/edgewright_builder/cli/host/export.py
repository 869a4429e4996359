"""`edgewright export`: the model of a run as a file for another runtime."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgewright_builder.cli.output import console
from edgewright_builder.show.sheet import print_result


class Target(str, Enum):
    """A format."""

    GGUF = "gguf"
    ONNX = "onnx"
    GPTQ = "gptq"


def export(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or of a GPTQ checkpoint.", show_default=False)
    ],
    to: Annotated[Target, typer.Option("--to", help="Format of the file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="New or empty folder.", show_default=False)],
) -> None:
    """Write a run's model for another runtime: gguf for llama.cpp, Ollama and LM Studio, onnx, or gptq for vLLM."""
    from edgewright_builder.python_api.exporting import (
        export as write_model,  # here, so that --help answers at once
    )

    print_result(console(), write_model(run, to=to.value, out=out))
