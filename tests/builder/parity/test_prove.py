"""A model is called supported where a tiny one of the same configuration was tried in the engine that serves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgewright.errors import InputError, RefusedError
from edgewright_builder.cli.main import app
from edgewright_builder.fit.configuration.families import decoder_config
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.proof.record import Proof, fingerprint, tiny_for
from edgewright_builder.fit.proof.tiny_config import tiny_config
from edgewright_builder.parity import prove as proving
from edgewright_builder.parity.catalogue import catalogue_document, prove_catalogue
from edgewright_builder.parity.prove import prove, require_proof
from edgewright_builder.parity.provers import PROVERS
from tests.support.configurations import (
    GEMMA_3,
    LLAMA,
    MISTRAL,
    SUPPORTED,
    SUPPORTED_BY_LLAMA_CPP,
)

ROOT = Path(__file__).parents[3]
ORIN = "jetson-orin-nano-8gb"
ONNX_RUNTIME, LLAMA_CPP = "onnxruntime-genai", "llama.cpp"
ONNX = ("--engine", ONNX_RUNTIME)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config_file(folder: Path, config: Mapping[str, Any]) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def proof_of(config: Mapping[str, Any], difference: float) -> Proof:
    agreement = 1.0 if difference < 1 else 0.4
    return Proof(ONNX_RUNTIME, tiny_config(config), difference, 10.0, agreement, 375, 1.0, {})


FEW: Mapping[str, tuple[str, ...]] = {
    ONNX_RUNTIME: ("gemma3, each kind scaled", "mistral, windows, yarn, heads of 100", "smollm3, windows, yarn"),
    LLAMA_CPP: ("gemma3, its own scale, linear", "phi3, longrope, three quarters turned", "smollm3"),
}  # fmt: skip


def ways(engine: str) -> dict[str, Mapping[str, Any]]:
    """The configurations that the engine can serve."""
    all_ways = {**SUPPORTED, **SUPPORTED_BY_LLAMA_CPP}
    return {
        name: config
        for name, config in all_ways.items()
        if engine_traits(engine).why_not(config, decoder_config(config)["num_hidden_layers"]) is None
    }


@pytest.mark.parametrize("engine", FEW)
@pytest.mark.timeout(600)  # ten seconds on an idle machine
def test_windows_scaled_positions_and_odd_heads_are_computed_as_transformers_does(
    engine: str, cache: Path
) -> None:
    names = FEW[engine]
    tiny_configs = [tiny_for(ways(engine)[name], engine) for name in names]
    for name, found in zip(names, prove(engine, tiny_configs), strict=True):
        assert isinstance(found, Proof), f"{name}: {found}"
        assert found.equal, f"{name}: {found}"
        assert found.tokens > 300


@pytest.mark.slow
@pytest.mark.parametrize("engine", FEW)
@pytest.mark.timeout(3600)
def test_every_way_of_computing_is_equal_to_transformers(engine: str) -> None:
    tiny_configs = [tiny_for(config, engine) for config in ways(engine).values()]
    outcomes = dict(zip(ways(engine), prove(engine, tiny_configs), strict=True))
    assert len(outcomes) > 25
    different = {
        name: str(found) for name, found in outcomes.items() if isinstance(found, str) or not found.equal
    }
    assert different == {}


@pytest.mark.slow
@pytest.mark.parametrize("engine", FEW)
@pytest.mark.timeout(3600)
def test_every_built_in_model_is_equal_and_its_proof_ships(engine: str) -> None:
    """After new versions or changes of the exporter's rooms: scripts/prove-catalogue writes the file anew."""
    rows = prove_catalogue(engine)
    assert {row.models: str(row.outcome) for row in rows if not row.equal} == {}
    file = ROOT / f"builder/edgewright_builder/fit/proof/{engine}.json"
    shipped, proved = json.loads(file.read_text(encoding="utf-8")), catalogue_document(engine, rows)
    assert [proof["config"] for proof in shipped["proofs"]] == [proof["config"] for proof in proved["proofs"]]
    assert shipped["versions"] == proved["versions"]


def test_a_proof_is_kept_and_not_done_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def child(engine: str, tiny_configs: list[Any]) -> list[dict[str, Any]]:
        done.append(len(tiny_configs))
        figures: dict[str, Any] = {
            "max_logit_difference": 1e-5,
            "logit_deviation": 9.0,
            "argmax_agreement": 1.0,
        }
        figures |= {"engine": engine, "tokens": 375, "seconds": 2.0}
        return [{"config": tiny, **figures} for tiny in tiny_configs]

    monkeypatch.setattr(proving, "_run_child", child)
    first = require_proof(LLAMA, ONNX_RUNTIME)
    assert require_proof({**LLAMA, "num_hidden_layers": 12, "vocab_size": 32_000}, ONNX_RUNTIME) == first
    assert done == [1]
    (kept,) = (cache / "proofs").iterdir()
    kept.write_text("{", encoding="utf-8")  # a disk that was full
    assert require_proof(LLAMA, ONNX_RUNTIME) == first
    newer = replace(PROVERS[ONNX_RUNTIME], versions=lambda: {"onnxruntime": "1.99.0"})
    monkeypatch.setattr(proving, "PROVERS", {**PROVERS, ONNX_RUNTIME: newer})
    require_proof(LLAMA, ONNX_RUNTIME)
    assert done == [1, 1, 1]
    assert require_proof(LLAMA, LLAMA_CPP).engine == LLAMA_CPP  # each engine has its own
    assert done == [1, 1, 1, 1]


def test_what_differs_is_refused_with_the_figures_and_the_keys_that_may_be_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = SUPPORTED["gemma3, linear"]
    monkeypatch.setattr(proving, "prove", lambda engine, tiny_configs: [proof_of(config, 7.3)])
    arguments = ["check", config_file(tmp_path, config), "--device", ORIN, "--prove", *ONNX]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)  # exit code 2
    assert "differ by at most 7.3e+00" in str(result.exception)
    assert "rope_type linear, default" in str(result.exception)
    assert "sliding_window 48" in str(result.exception)


def test_what_can_t_be_exported_is_refused_with_the_exporter_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "prove", lambda engine, tiny_configs: ["NotImplementedError: the thing"])
    with pytest.raises(InputError, match="can't be exported and served: NotImplementedError: the thing"):
        require_proof(LLAMA, ONNX_RUNTIME)


def test_without_a_server_nothing_is_proved_for_llama_cpp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_LLAMA_SERVER", "/nowhere/llama-server")
    arguments = ["check", config_file(tmp_path, LLAMA), "--device", ORIN, "--prove", "--engine", LLAMA_CPP]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, RefusedError)
    assert "/nowhere/llama-server, which EDGEWRIGHT_LLAMA_SERVER names" in str(result.exception)


@pytest.mark.parametrize("engine", FEW)
def test_check_says_whether_a_model_is_proved(engine: str) -> None:
    runner, asked = CliRunner(), ("--device", ORIN, "--engine", engine)
    known = runner.invoke(app, ["check", "gemma-3-1b", *asked])
    assert "proved: logits differ by at most" in known.stdout
    document = json.loads(runner.invoke(app, ["check", "gemma-3-1b", *asked, "--json"]).stdout)
    assert document["proof"]["equal"] is True
    assert document["proof"]["argmax_agreement"] == 1.0


def test_check_says_that_a_model_is_not_proved(tmp_path: Path) -> None:
    file = config_file(tmp_path, {**LLAMA, "head_dim": 56, "num_attention_heads": 4})
    printed = CliRunner().invoke(app, ["check", file, "--device", ORIN, *ONNX]).stdout
    assert "not proved to compute what transformers computes" in printed


def test_an_engine_that_loads_the_checkpoint_has_nothing_to_prove(tmp_path: Path) -> None:
    arguments = ["check", "qwen3-0.6b", "--device", ORIN, "--engine", "vllm", "--prove"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert "computes from the checkpoint itself" in str(result.exception)


def test_a_proof_holds_for_models_that_compute_alike_and_for_no_others() -> None:
    larger = {**GEMMA_3, "num_hidden_layers": 26, "intermediate_size": 6912, "vocab_size": 262_144}
    assert fingerprint(larger, ONNX_RUNTIME) == fingerprint(GEMMA_3, ONNX_RUNTIME)
    for change in (
        {"head_dim": 64}, {"attention_bias": True}, {"query_pre_attn_scalar": 32}, {"rope_theta": 1e5},
        {"tie_word_embeddings": False}, {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"sliding_window": 4096}, {"hidden_activation": "gelu"},
    ):  # fmt: skip
        changed = {**GEMMA_3, **change}
        assert fingerprint(changed, ONNX_RUNTIME) != fingerprint(GEMMA_3, ONNX_RUNTIME), change


def test_where_llama_cpp_has_no_windows_a_model_is_proved_as_far_as_it_is_served() -> None:
    windowed = {**MISTRAL, "sliding_window": 64}
    assert fingerprint(windowed, LLAMA_CPP) == fingerprint(MISTRAL, LLAMA_CPP)
    assert fingerprint(windowed, ONNX_RUNTIME) != fingerprint(MISTRAL, ONNX_RUNTIME)
    assert fingerprint({**GEMMA_3, "sliding_window": None}, LLAMA_CPP) != fingerprint(GEMMA_3, LLAMA_CPP)


def test_a_difference_beyond_rounding_is_no_proof() -> None:
    near = proof_of(LLAMA, 1e-4)
    assert near.equal
    assert not replace(near, max_logit_difference=0.01).equal
    assert not replace(near, argmax_agreement=0.99).equal
