"""What a build asks llama.cpp for its golden prompt: tokens, and how far ahead of the runner-up each was."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_builder.export.files import copy_tokenizer
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.fit.proof.record import tiny_for
from edgewright_builder.local_engine.engine import local_engine, open_arithmetics
from edgewright_builder.local_engine.reference import ReferenceModel
from edgewright_builder.models.folder import load_tokenizer
from edgewright_builder.parity.checkpoint import make_checkpoint
from edgewright_builder.parity.llama_cpp import Q8_0_CODE_MAX
from tests.support.configurations import LLAMA
from tests.support.engine_releases import Release

PROMPT, TOKENS = "on the other hand", 16
ROUNDING = 0.5  # nats: keys and values have 16 bits in llama.cpp, and the leads are of some 8


def test_its_tokens_and_their_leads_are_those_of_transformers(tmp_path: Path) -> None:
    checkpoint, tree = tmp_path / "checkpoint", tmp_path / "tree"
    model = make_checkpoint(tiny_for(LLAMA, "llama.cpp"), checkpoint, table_code_max=Q8_0_CODE_MAX)
    (tree / "engine").mkdir(parents=True)
    write_gguf(checkpoint, 8, tree / "engine/model.gguf", "tiny", dequantized=True)
    copy_tokenizer(checkpoint, tree / "tokenizer")
    manifest = Release("llama.cpp", tree, tmp_path / "run").manifest
    with local_engine(tree, manifest) as engine:
        told = engine.greedy(PROMPT, TOKENS)
    expected = ReferenceModel(model, load_tokenizer(checkpoint)).greedy(PROMPT, TOKENS)
    assert told.tokens == expected.tokens
    assert any(told.leads)
    for lead, right in zip(told.leads, expected.leads, strict=True):
        assert lead == pytest.approx(right, abs=ROUNDING) or lead == 0.0  # of a token inside a character
    assert len(open_arithmetics(tree, manifest, tmp_path)) == 1
