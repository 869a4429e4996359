"""Releases whose layers keep a window of the cache, as the exporter writes them by itself, are still served."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgewright_builder.fit.engines.onnx import TOLERANCE
from edgewright_builder.fit.proof.tiny_config import WINDOW, tiny_config
from tests.support.configurations import QWEN_2

CONTEXT_TOKENS = 256  # an eighth of it is narrower than the window


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_request_is_served_by_a_graph_that_keeps_a_window(tmp_path: Path) -> None:
    import numpy as np
    import torch

    from edgewright_agent.engine_worker.batching.pool import Pool
    from edgewright_agent.engine_worker.model.onnx import OnnxBackend
    from edgewright_builder.parity.checkpoint import make_checkpoint

    config = {**QWEN_2, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    checkpoint, engine = tmp_path / "checkpoint", tmp_path / "engine"
    model = make_checkpoint(tiny_config(config), checkpoint)
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "int4", "-e", "cpu"]
    options = ["accuracy_level=1", "shared_embeddings=false", "matmul_mixed_precision=last_matmul:int8"]
    folders = ["-i", str(checkpoint), "-o", str(engine), "-c", str(tmp_path / "cache")]
    subprocess.run([*builder, *folders, "--extra_options", *options], check=True, cwd=tmp_path)
    backend = OnnxBackend(engine, checkpoint, CONTEXT_TOKENS, threads=1)
    pool = Pool(backend.layout, backend.pool_tokens, backend.context_tokens, backend.copy)
    draw = np.random.default_rng(0)
    for length in (20, WINDOW + 30):
        tokens = [int(token) for token in draw.integers(7, backend.vocab_size, length)]
        row = pool.take(length, tokens, None)
        assert row is not None
        assert row.place.width_tokens >= WINDOW
        served = np.array(backend.read(row.place, 0, tokens, None))
        with torch.inference_mode():
            expected = model(torch.tensor([tokens])).logits[0].numpy()
        assert abs(served - expected).max() <= TOLERANCE * expected.std()
        pool.release(row)
