"""What stands in on the host for an engine that runs on boards alone: the checkpoint that ships, in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from edgewright_builder.export.checkpoint import export_checkpoint
from edgewright_builder.local_engine.golden_prompt import golden_prompt
from edgewright_builder.local_engine.reference import ReferenceModel, open_references
from edgewright_builder.models.folder import load_tokenizer
from edgewright_builder.parity.checkpoint import make_checkpoint
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from tests.support.gptq_checkpoints import FAMILIES

PROMPT = "the cat sat on the mat"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    config: Mapping[str, Any] = FAMILIES["llama"]
    make_checkpoint({key: value for key, value in config.items() if value is not None}, folder / "checkpoint")
    (folder / "export").mkdir()
    export_checkpoint(folder / "checkpoint", folder / "export")
    return folder / "export"


def test_the_engine_s_folder_is_a_whole_checkpoint_with_its_tokenizer(exported: Path) -> None:
    names = {file.name for file in (exported / "engine").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    for file in (exported / "tokenizer").iterdir():
        assert (exported / "engine" / file.name).read_bytes() == file.read_bytes()


def test_its_greedy_tokens_are_those_that_transformers_generates(exported: Path) -> None:
    model: Any = load_dequantized(exported / "engine", torch.float32)
    tokenizer = load_tokenizer(exported / "engine")
    told = ReferenceModel(model, tokenizer).greedy(PROMPT, 12)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert list(told.tokens) == expected[0, ids.shape[1] :].tolist()
    assert len(told.leads) == len(told.tokens)
    assert all(lead >= 0 for lead in told.leads)


def test_the_golden_prompt_trusts_what_float32_and_float16_agree_on(exported: Path) -> None:
    golden = golden_prompt(open_references(exported / "engine"), [PROMPT, "on the mat"])
    assert golden["prompt"] in (PROMPT, "on the mat")
    assert len(golden["leads"]) == len(golden["tokens"]) > 0
