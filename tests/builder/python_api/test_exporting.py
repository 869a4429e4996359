"""`edgewright export` writes a run's model alone, for runtimes that are not ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from edgewright.errors import InputError
from edgewright_builder.cli.main import app
from edgewright_builder.fit.engines.traits import Format
from edgewright_builder.python_api.exporting import export
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.gptq_checkpoints import FAMILIES, change_config, random_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "quantize").mkdir()
    random_checkpoint(FAMILIES["llama"], folder / "quantize" / "model", 32)
    (folder / "plan.json").write_text(json.dumps({"embedding_bits": 4}), encoding="utf-8")
    return folder


def test_a_run_becomes_one_gguf_file_and_the_command_says_what_it_wrote(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(run), "--to", "gguf", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == f"{run.name}.gguf"
    told = " ".join(result.stdout.split())
    assert file.name in told
    assert "embedding and head in 4 bits" in told
    assert "Ollama" in told
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_q.weight"] == "Q4_0"


@pytest.mark.parametrize(("name", "file_name"), [("slm", "slm.gguf"), ("../../stolen", "run.gguf")])
def test_the_file_is_called_after_the_release_and_lies_in_the_folder_whatever_a_manifest_says(
    run: Path, tmp_path: Path, name: str, file_name: str
) -> None:
    copied = tmp_path / "deep" / "run"
    shutil.copytree(run, copied)
    artifact = make_artifact(copied / "artifact", {"engine/model.gguf": b"x"}, KEY)
    text = artifact.manifest_bytes.decode()
    (copied / "artifact" / "manifest.json").write_text(
        text.replace(f'"{artifact.manifest.name}"', f'"{name}"')
    )
    export(copied, to="gguf", out=tmp_path / "deep" / "er" / "out")
    assert [
        file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.gguf") if file.stat().st_size > 1
    ] == [f"deep/er/out/{file_name}"]


def test_a_recovered_run_ships_what_recovery_left(run: Path, tmp_path: Path) -> None:
    recovered = tmp_path / "run" / "recover" / "model"
    recovered.parent.mkdir(parents=True)
    random_checkpoint(FAMILIES["llama"], recovered, 64, seed=5)
    assert export(tmp_path / "run", to="gguf", out=tmp_path / "out").made_from == str(recovered)


def test_a_checkpoint_of_its_own_is_taken_too(run: Path, tmp_path: Path) -> None:
    written = export(run / "quantize" / "model", to="gptq", out=tmp_path / "out")
    assert written.embedding_bits == 16
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }


def test_what_is_in_the_way_is_said_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="not an empty folder"):
        export(run, to="gguf", out=tmp_path)
    with pytest.raises(InputError, match="no quantized model"):
        export(tmp_path, to="gguf", out=tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def cut_in_half(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def without_heads(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    del config["num_attention_heads"]
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")


def without_a_norm(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.layers.2.input_layernorm.weight"]
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})


def unquantized(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")


def as_autogptq_left_it(checkpoint: Path) -> None:
    unquantized(checkpoint)
    (checkpoint / "quantize_config.json").write_text('{"bits": 4, "group_size": 32}', encoding="utf-8")


def with_half_a_tokenizer(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8")[:500], encoding="utf-8")


def with_an_empty_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "to", "named"),
    [
        *((cut_in_half, to, "is corrupt") for to in ("gguf", "onnx", "gptq")),
        *((without_heads, to, "lacks a positive num_attention_heads") for to in ("gguf", "gptq")),
        (without_a_norm, "gguf", "blk.2.attn_norm.weight"),
        (with_half_a_tokenizer, "gguf", "tokenizer.json is not readable"),
        (with_an_empty_tokenizer, "gguf", "no `model` with a `vocab`"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_leaves_no_folder(
    damage: Callable[[Path], None], to: Format, named: str, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(FAMILIES["llama"], tmp_path / "checkpoint", 32)
    damage(checkpoint)
    with pytest.raises(InputError, match=named) as caught:
        export(checkpoint, to=to, out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["gguf", "onnx", "gptq"])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"checkpoint_format": "gptq_v2"}, "is stored as 'gptq_v2', expected 'gptq'"),
        ({"checkpoint_format": None, "format": "marlin"}, "is stored as 'marlin'"),
        ({"desc_act": True}, "act-order"),
        ({"sym": False}, "asymmetric"),
        ({"bits": 8}, "8 bits a weight; 4 are held"),
        ({"lm_head": True}, "quantized head"),
        ({"dynamic": {"-:.*down.*": {}}}, "`dynamic`"),
        ({"quant_method": "awq"}, "'awq'; expected GPTQ"),
    ],
)
def test_a_quantization_that_readers_take_for_another_is_refused_for_every_format(
    settings: dict[str, Any], named: str, to: Format, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(FAMILIES["llama"], tmp_path / "checkpoint", 32)
    change_config(checkpoint, **settings)
    with pytest.raises(InputError, match=named):
        export(checkpoint, to=to, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["gguf", "onnx", "gptq"])
@pytest.mark.parametrize(
    ("damage", "named"), [(unquantized, "edgewright build"), (as_autogptq_left_it, "quantize_config.json")]
)
def test_a_model_that_is_not_quantized_is_not_exported_as_if_it_were(
    damage: Callable[[Path], None], named: str, to: Format, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(FAMILIES["llama"], tmp_path / "checkpoint", 32)
    damage(checkpoint)
    with pytest.raises(InputError, match=f"no `quantization_config` in its config.json.*{named}"):
        export(checkpoint, to=to, out=tmp_path / "out")
