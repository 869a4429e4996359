"""What the exporter's child process writes depends on the checkpoint and the installed releases alone."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import onnx
import onnxruntime_genai

from edgewright_builder.export.onnx import export_unquantized
from tests.support.tiny_model import make_model, make_tokenizer


def test_the_graph_names_the_exporter_s_release_and_no_repository_around_it(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "checkpoint")
    make_tokenizer().save_pretrained(tmp_path / "checkpoint")
    folder = tmp_path / "export"
    folder.mkdir()
    export_unquantized(tmp_path / "checkpoint", folder)
    graph = onnx.load(str(folder / "engine" / "model.onnx"), load_external_data=False)
    release = metadata.version("onnxruntime-genai")
    assert graph.producer_version == f"{release}+{onnxruntime_genai.__commit__[:7]}"
