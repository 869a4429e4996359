from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from edgewright.errors import InputError
from edgewright_builder.models.folder import load_model, load_tokenizer, model_digest
from edgewright_builder.models.sources import resolve_model
from tests.support.tiny_models import tiny_model, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_whole_model_with_a_tied_head_loads(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert load_model(folder).get_output_embeddings() is not None  # type: ignore[operator]


def test_weights_that_lack_a_tensor_are_refused_naming_it(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"lack 1 tensors .*the first is model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load_model(folder)


def test_weights_of_another_shape_than_the_configurations_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}), encoding="utf-8")
    with pytest.raises(InputError, match=r"do not fit its config\.json"):
        load_model(folder)


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="no readable tokenizer"):
        load_tokenizer(folder)


def test_a_tokenizer_saved_with_truncation_and_padding_is_saved_again_without(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer("a b c", truncation=True, max_length=4)
    tokenizer.backend_tokenizer.enable_padding(length=8)
    tokenizer.save_pretrained(folder)
    kept = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert None not in (kept["truncation"], kept["padding"])
    load_tokenizer(folder).save_pretrained(folder / "again")
    saved = json.loads((folder / "again" / "tokenizer.json").read_text(encoding="utf-8"))
    assert (saved["truncation"], saved["padding"]) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json", "tokenizer.model", "qwen.tiktoken", "merges.txt", "vocab.txt", "chat_template.jinja",
        "generation_config.json", "model-00001-of-00002.safetensors",
    ],
)  # fmt: skip
def test_whatever_is_read_of_a_model_is_in_its_digest(name: str, folder: Path) -> None:
    (folder / name).write_text("one")
    before = model_digest(folder)
    (folder / name).write_text("other")
    assert model_digest(folder) != before


def test_what_is_not_read_and_where_a_model_came_from_are_not_in_its_digest(folder: Path) -> None:
    before = model_digest(folder)
    (folder / "README.md").write_text("about")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": "elsewhere"}), encoding="utf-8")
    assert model_digest(folder) == before


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "a LoRA adapter and not its model; merge it"),
        (
            ["config.json", "pytorch_model-00001-of-00002.bin"],
            "as a pickle .pytorch_model-00001-of-00002.bin.",
        ),
        (["config.json", "consolidated.00.pth"], "as a pickle .consolidated.00.pth."),
        (["config.json"], "no .*safetensors weights; fetch"),
        ([], "no config.json, so it is not a model folder"),
    ],
)
def test_a_folder_that_is_another_s_says_what_to_make_of_it(
    files: list[str], words: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=words):
        resolve_model(str(tmp_path))


def test_a_truncated_gguf_is_refused_and_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"GGUF\3\0\0\0" + bytes(40))
    with pytest.raises(InputError, match=r"model\.gguf could not be read as a model"):
        resolve_model(str(weights))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_two_builds_that_read_the_same_gguf_at_once_both_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"GGUF")
    found: list[Path] = []

    def dequantize(file: Path, folder: Path) -> None:
        if not found:  # another build begins while this one is at work, and ends first
            found.append(folder)
            found[0] = resolve_model(str(weights))
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr("edgewright_builder.models.gguf_source._dequantize", dequantize)
    assert resolve_model(str(weights)) == found[0]
    assert [path.name for path in found[0].parent.iterdir()] == [found[0].name]
