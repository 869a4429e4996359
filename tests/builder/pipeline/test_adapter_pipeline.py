"""An adapter's build: the 4-bit base in floats, training on it, its recipe, and how it travels."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file, save_file

from edgewright.errors import InputError, RefusedError
from edgewright.manifest import AdapterSlots
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.fit.architecture import architecture_from_config
from edgewright_builder.fit.meets_budget import adapter_bytes
from edgewright_builder.models.folder import load_model
from edgewright_builder.pipeline.adapter_base import Base, find_base, require_slots
from edgewright_builder.pipeline.adapter_pipeline import AdapterBuild, preflight_adapter, served_identity
from edgewright_builder.push.push import push
from edgewright_builder.python_api.run_folder import RunFolder
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from edgewright_builder.recipe.adapter_recipe import AdapterRecipe, load_any_recipe
from edgewright_builder.recipe.hyperparameters import Hyperparameters
from edgewright_builder.recipe.model_recipe import PROJECTIONS, FinetuneSettings, Recipe
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import Run, digest_of_products
from edgewright_builder.stages.finetune_adapter import finetune_adapter
from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states, read_hidden_states
from edgewright_builder.train.epoch import DistillationData, Training
from edgewright_builder.train.optimizers import learning_rate_factor
from edgewright_builder.train.samples import make_sample, split
from edgewright_profiles import load_profile
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.device_simulator import Board, simulated_device
from tests.support.tiny_gptq_checkpoint import write_quantized
from tests.support.tiny_models import tiny_model, tiny_tokenizer

EXAMPLES = Path(__file__).parents[3] / "examples"
RECIPE: dict[str, Any] = {"name": "task", "task": "t", "base": "runs/base", "data": {"file": "data.jsonl"}}
SPEC = {"base": "ab" * 32, "path": "adapter/model.onnx_adapter", "modules": ["q_proj"], "rank": 4}


@pytest.fixture
def quantized(tmp_path: Path) -> tuple[Path, Path]:
    return write_quantized(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> DistillationData:
    tiny_model(2).save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    pairs = [
        {"instruction": f"Which is {a}?", "output": f"{a} is air and light."} for a in "abcdefghijklmnop"
    ]
    made = (make_sample(tiny_tokenizer(), pair, "response", 64) for pair in pairs)
    samples = [sample for sample in made if sample is not None]
    cache = tmp_path / "cache"
    cache.mkdir()
    cache_hidden_states(tmp_path / "teacher", samples, 128, 0, cache, lambda *_: None)
    return DistillationData(
        samples, *split(samples, 0.25, seed=0), read_hidden_states(cache, samples), pad_token=0
    )


def test_a_gptq_checkpoint_in_floats_is_the_model_it_was_rounded_to(quantized: tuple[Path, Path]) -> None:
    tokens = torch.arange(5, 40)[None]
    with torch.no_grad():
        ours, theirs = load_dequantized(quantized[0])(tokens), load_model(quantized[1])(tokens)
    assert torch.equal(ours.logits, theirs.logits)


@pytest.mark.parametrize("change", [{"desc_act": True}, {"bits": 8}, {"sym": False}])
def test_another_quantization_is_refused(quantized: tuple[Path, Path], change: dict[str, Any]) -> None:
    path = quantized[0] / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] |= change
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="no symmetric 4-bit GPTQ checkpoint"):
        load_dequantized(quantized[0])


def test_shuffled_groups_are_refused(quantized: tuple[Path, Path]) -> None:
    file = quantized[0] / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("mlp.down_proj.g_idx"))
    save_file(tensors | {name: tensors[name].flip(0).contiguous()}, file, {"format": "pt"})
    with pytest.raises(InputError, match="act-order"):
        load_dequantized(quantized[0])


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_training_an_adapter_lowers_the_loss_and_leaves_the_base_alone(
    quantized: tuple[Path, Path], data: DistillationData, tmp_path: Path, alpha: float
) -> None:
    before = digest_of_products(quantized[0], ("",))
    hyperparameters = Hyperparameters("adam", 2e-2, 0.0, 4, 2.0, 1.0, alpha, epochs=4)
    out = tmp_path / "out"
    out.mkdir()
    training = Training(data, FinetuneSettings(batch_tokens=128), 0, lambda *_: None)
    summary = finetune_adapter(quantized[0], training, hyperparameters, ("q_proj", "up_proj"), out)
    assert summary["validation_loss_after"] < 0.9 * summary["validation_loss_before"]
    assert digest_of_products(quantized[0], ("",)) == before
    assert (out / "adapter" / "model.onnx_adapter").stat().st_size == summary["adapter_bytes"]
    predicted_bytes = adapter_bytes(
        architecture_from_config(tiny_model(1).config.to_dict()), ("q_proj", "up_proj"), 4
    )
    factors = 2 * 2 * 2  # of each module in each of two layers
    assert predicted_bytes <= summary["adapter_bytes"] <= predicted_bytes + 256 * factors
    config = json.loads((out / "peft" / "adapter_config.json").read_text(encoding="utf-8"))
    assert sorted(config["target_modules"]) == ["q_proj", "up_proj"]


def test_an_adapters_learning_rate_rises_and_falls_once_over_all_its_epochs(
    quantized: tuple[Path, Path], data: DistillationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    courses: list[tuple[int, int]] = []

    def factor(step: int, steps: int, warmup_fraction: float) -> float:
        courses.append((step, steps))
        return learning_rate_factor(step, steps, warmup_fraction)

    monkeypatch.setattr("edgewright_builder.train.loop.learning_rate_factor", factor)
    recipe = adapter_recipe(tmp_path, adapter={"epochs": 3})
    training = Training(data, FinetuneSettings(batch_tokens=128), 0, lambda *_: None)
    finetune_adapter(quantized[0], training, recipe.hyperparameters, ("q_proj",), tmp_path)
    steps = courses[0][1]
    assert courses == [(step, steps) for step in range(steps)]
    once = sum(data.samples[index].counted_tokens for index in data.train)
    curves = json.loads((tmp_path / "curves.json").read_text(encoding="utf-8"))
    assert curves["train"][-1]["tokens"] == 3 * once


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "adapter.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def adapter_recipe(folder: Path, **changes: Any) -> AdapterRecipe:
    recipe = load_any_recipe(written(folder, RECIPE | changes))
    assert isinstance(recipe, AdapterRecipe)
    return recipe


def test_a_recipe_with_a_base_is_an_adapter_s_and_its_paths_start_at_its_folder(tmp_path: Path) -> None:
    recipe = adapter_recipe(tmp_path)
    assert recipe.base == tmp_path / "runs/base"
    assert recipe.data.file == tmp_path / "data.jsonl"
    assert isinstance(load_any_recipe(EXAMPLES / "own-data.yaml"), Recipe)


def test_the_example_is_valid_and_its_quiz_is_not_its_data() -> None:
    recipe = load_any_recipe(EXAMPLES / "adapter.yaml")
    assert isinstance(recipe, AdapterRecipe)
    assert recipe.data.file is not None
    rows = [json.loads(line) for line in recipe.data.file.read_text(encoding="utf-8").splitlines()]
    quiz = [
        json.loads(line) for line in Path(recipe.evaluate.tasks[0]).read_text(encoding="utf-8").splitlines()
    ]
    assert {row["output"] for row in rows} == set(quiz[0]["choices"])
    assert not {row["instruction"] for row in rows} & {row["question"] for row in quiz}


def test_cross_entropy_is_learned_without_a_teacher_and_the_kl_with_one(tmp_path: Path) -> None:
    teachers = {"knowledge": {"model": "a/b"}}
    assert adapter_recipe(tmp_path).alpha == 0
    assert adapter_recipe(tmp_path, teachers=teachers).alpha == 1
    assert adapter_recipe(tmp_path, teachers=teachers, adapter={"alpha": 0.5}).alpha == 0.5


def test_what_an_artifact_carries_of_the_recipe_names_no_path(tmp_path: Path) -> None:
    recipe = adapter_recipe(tmp_path, evaluate={"tasks": ["quiz.jsonl"], "benchmarks": "b"})
    assert str(tmp_path) not in json.dumps(recipe.portable())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"adapter": {"modules": ["lm_head"]}}, "adapter.modules"),
        ({"adapter": {"rank": 0}}, "`adapter.rank` is 0"),
        ({"student": {"model": "x"}}, "unknown key `student`"),
        ({"data": {}}, "teachers.data"),
        ({"base": None}, "`base` is None"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        load_any_recipe(written(tmp_path, RECIPE | change))


def test_a_base_without_slots_says_how_to_get_them(tmp_path: Path) -> None:
    make_artifact(tmp_path / "artifact", {"engine/model.bin": b"x"}, KEY)
    (tmp_path / "quantize" / "model").mkdir(parents=True)
    (tmp_path / "quantize" / "model" / "config.json").write_text("{}", encoding="utf-8")
    for source in (tmp_path, tmp_path / "artifact"):
        with pytest.raises(InputError, match=r"adapters: \{rank: 8\}"):
            find_base(source)
    with pytest.raises(InputError, match="no finished run"):
        find_base(tmp_path / "quantize")


def test_a_base_with_slots_is_found_by_its_run_or_its_artifact(tmp_path: Path) -> None:
    slots = {"modules": ["q_proj"], "rank": 8}
    artifact = make_artifact(tmp_path / "artifact", {"engine/model.bin": b"x"}, KEY, adapter_slots=slots)
    (tmp_path / "quantize" / "model").mkdir(parents=True)
    (tmp_path / "quantize" / "model" / "config.json").write_text("{}", encoding="utf-8")
    assert (
        find_base(tmp_path).artifact.digest
        == find_base(tmp_path / "artifact").artifact.digest
        == artifact.digest
    )
    (tmp_path / "artifact" / "engine" / "model.bin").write_bytes(b"y")
    with pytest.raises(InputError, match="altered"):
        find_base(tmp_path)


def test_a_base_signed_again_for_a_mirror_answers_as_before_and_need_not_be_evaluated(tmp_path: Path) -> None:
    def identity(folder: str, content: bytes, **fields: Any) -> str:
        return served_identity(
            make_artifact(tmp_path / folder, {"engine/model.bin": content}, KEY, **fields).manifest
        )

    mirrors = [{"layout": "oci-layout", "url": "https://downloads.example.org/slm"}]
    before = identity("base", b"x")
    assert identity("mirrored", b"x", mirrors=mirrors) == before
    assert identity("other", b"y") != before


def test_a_base_whose_build_was_begun_again_and_not_ended_is_refused(tmp_path: Path) -> None:
    slots = {"modules": ["q_proj"], "rank": 8}
    make_artifact(tmp_path / "artifact", {"engine/model.bin": b"x"}, KEY, adapter_slots=slots)
    for stage in ("quantize", "recover", "package"):
        (tmp_path / stage / "model").mkdir(parents=True)
        for name in ("started", "stage.json", "model/config.json"):
            (tmp_path / stage / name).write_text("{}", encoding="utf-8")
    find_base(tmp_path)
    (tmp_path / "recover" / "stage.json").unlink()
    with pytest.raises(InputError, match=r"was stopped in its stage recover: .* --resume first"):
        find_base(tmp_path)


def adapter_build(folder: Path, quantized: Path, budget_bytes: int, **changes: Any) -> AdapterBuild:
    """An adapter of a base that takes 1 MiB and 1 KiB at most."""
    slots = AdapterSlots(modules=PROJECTIONS, rank=64)
    artifact = make_artifact(folder / "artifact", {"engine/model.bin": b"x"}, KEY, adapter_slots=slots)
    base = Base(artifact, slots, quantized, folder / "plain")
    run = Run(folder / "run", Reporter(Console(file=io.StringIO())))
    recipe = adapter_recipe(folder, **changes)
    return AdapterBuild(recipe, base, load_profile("this-host"), budget_bytes, run, KEY)


def test_an_adapter_that_does_not_fit_beside_its_base_is_refused_before_it_is_trained(
    quantized: tuple[Path, Path], tmp_path: Path
) -> None:
    base_bytes = 2**20 + 1024
    build = adapter_build(tmp_path, quantized[0], base_bytes + 1024, adapter={"rank": 64})
    with pytest.raises(RefusedError, match=r"^Base and adapter are predicted to take 1\.4 MiB at most") as no:
        preflight_adapter(build)
    assert (no.value.exit_code, no.value.reason) == (1, Reason.REASON_MEMORY_BUDGET)
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_less_rank_fits_where_a_large_one_does_not(
    quantized: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "data.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    (tmp_path / "quiz.jsonl").write_text('{"question": "a", "choices": ["b", "c"], "answer": 0}\n')
    changes = {"evaluate": {"tasks": [str(tmp_path / "quiz.jsonl")]}, "adapter": {"rank": 1}}
    preflight_adapter(adapter_build(tmp_path, quantized[0], 2**20 + 16 * 1024, **changes))


def test_rank_and_modules_beyond_the_base_s_slots_are_refused() -> None:
    slots = AdapterSlots(modules=("q_proj",), rank=8)
    require_slots(slots, ["q_proj"], 8)
    with pytest.raises(InputError, match="up to rank 8"):
        require_slots(slots, ["q_proj"], 9)
    with pytest.raises(InputError, match="v_proj"):
        require_slots(slots, ["q_proj", "v_proj"], 8)


async def test_a_push_says_that_an_adapter_travels_and_sends_its_bytes_only(tmp_path: Path) -> None:
    artifact = make_artifact(
        tmp_path / "artifact", {"adapter/model.onnx_adapter": b"a" * 3000}, KEY, adapter=SPEC
    )
    async with simulated_device(Board()) as address, DeviceClient(address, None) as client:
        result = await push(client, artifact.folder, None)
    assert (result.plan.how, result.sent_bytes) == ("adapter", 3000)
    assert result.plan.line == "adapter: 2.9 KiB to send, its base stays where it is"


def test_accuracies_are_printed_with_their_errors_and_the_paired_difference(tmp_path: Path) -> None:
    models = {
        "base": {"acc": {"value": 0.25, "standard_error": 0.04}, "difference": {}},
        "adapter": {
            "acc": {"value": 0.9, "standard_error": 0.03},
            "difference": {"value": 0.65, "standard_error": 0.05},
        },
    }
    results = {"tasks": {"quiz": {"metric": "acc", "rows": 100, "models": models}}}
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert RunFolder(tmp_path).accuracy_lines() == [
        "quiz, 100 rows: base 25.0 ± 4.0 %, adapter 90.0 ± 3.0 %, +65.0 ± 5.0 points"
    ]
