"""Each engine says for itself what it takes, how large a model is in its file, and where it runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import gguf
import pytest
from typer.testing import CliRunner

from edgewright_builder.cli.main import app
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.fit.architecture import architecture_from_config
from edgewright_builder.fit.catalogue import builtin_models, find_builtin
from edgewright_builder.fit.engine_recommendation import recommend
from edgewright_builder.fit.engines import ENGINES, engine_traits
from edgewright_builder.fit.memory import Configuration, load_calibration, predict_memory, stored_tensors
from edgewright_builder.fit.model_facts import find_model
from edgewright_builder.fit.plan import Wishes, candidates
from edgewright_profiles import load_profile
from edgewright_profiles.schema import EngineKind
from tests.support.gptq_checkpoints import FAMILIES, random_checkpoint

ROOT = Path(__file__).parents[3]
ORIN, PI = "jetson-orin-nano-8gb", "raspberry-pi-5-8gb"


def check(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["check", *arguments, "--json"])
    assert result.exit_code in (0, 1), result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_nothing_asks_for_an_engine_by_name_outside_its_own_files() -> None:
    names = "|".join(map(re.escape, ENGINES))
    asks = re.compile(rf"(?:==|!=) *\"(?:{names})\"|(?:==|!=|\bin) *\w+\.KIND\b|\.KIND *(?:==|!=)")
    sources = [path for room in ("agent", "builder", "sdk") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 300
    own = re.compile(r"engines/(?:fake|onnx|llama_cpp|edge_llm|vllm)\b")
    asking = [path for path in sources if asks.search(path.read_text("utf-8")) and not own.search(str(path))]
    assert asking == []


def test_profiles_and_builder_know_the_same_engines() -> None:
    assert set(ENGINES) == set(get_args(EngineKind))


@pytest.mark.parametrize("name", ["smollm2-135m", "llama-3.2-1b", "qwen3-0.6b"])
def test_the_plan_for_llama_cpp_takes_groups_of_32_and_any_group_costs_the_same(name: str) -> None:
    model = find_model(name).architecture
    assert {m.group_size for m in candidates(model, Wishes(2048), "llama.cpp")} == {32}
    calibration = load_calibration("llama.cpp")
    peaks = {
        predict_memory(model, Configuration(model.layers, 4, group, 8, 2048, 1, 16), calibration).peak_bytes
        for group in (32, 64)
    }
    assert len(peaks) == 1


@pytest.mark.parametrize("family", ["llama", "llama, biases, untied", "qwen3", "gemma3", "phi3"])
@pytest.mark.parametrize("embedding_bits", [8, 4])
def test_the_weights_predicted_for_llama_cpp_are_those_of_the_file(
    family: str, embedding_bits: int, tmp_path: Path
) -> None:
    config = FAMILIES[family]
    checkpoint = random_checkpoint(config, tmp_path / "checkpoint", 64)
    write_gguf(checkpoint, embedding_bits, tmp_path / "model.gguf", "tiny")
    model = architecture_from_config({key: value for key, value in config.items() if value is not None})
    m = Configuration(model.layers, 4, 64, embedding_bits, 128, 1, 16)
    predicted = sum(
        tensor.stored_bytes for tensor in stored_tensors(model, m, engine_traits("llama.cpp").storage)
    )
    written = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors)
    rounding = 32 * 18 * model.layers  # of the vocabulary's last block
    assert abs(written - predicted) <= rounding


def test_edge_llm_refuses_a_model_that_groups_of_128_do_not_divide() -> None:
    document = check("smollm2-135m", "--device", ORIN, "--engine", "tensorrt-edge-llm")
    assert document["verdict"] == "not_served"
    assert "128" in document["why_not_served"]


def test_a_model_whose_layers_llama_cpp_counts_may_lose_none() -> None:
    builtin = find_builtin("smollm3-3b")
    assert builtin is not None
    traits, layers = engine_traits("llama.cpp"), builtin.config["num_hidden_layers"]
    assert traits.why_not(builtin.config, layers) is None
    why = traits.why_not(builtin.config, layers - 1)
    assert why is not None
    assert "student.depth: full" in why


@pytest.mark.parametrize(("board", "engine"), [(ORIN, "llama.cpp"), (PI, "onnxruntime-genai")])
def test_a_check_without_an_engine_recommends_one_and_says_why_in_a_sentence(board: str, engine: str) -> None:
    document = check("llama-3.2-1b", "--device", board)
    assert document["plan"]["engine"] == engine
    why = document["recommendation"]
    assert why.startswith(f"{engine} (")
    assert "tokens/s" in why
    assert why.endswith(".")
    assert check("llama-3.2-1b", "--device", board, "--engine", engine)["recommendation"] is None


def test_a_recommendation_names_the_jetpacks_of_an_engine_that_needs_a_newer_one() -> None:
    found = recommend(find_model("llama-3.2-1b"), load_profile(ORIN))
    assert "tensorrt-edge-llm (GPU on JetPack 7.2 and 7.2.2 only)" in found.why


def test_every_built_in_model_has_a_recommendation_on_every_kind_of_board() -> None:
    for board in (ORIN, PI, "dgx-spark", "jetson-nano-4gb"):
        for model in builtin_models():
            found = recommend(find_model(model.name), load_profile(board))
            assert found.engine in ENGINES
