"""A model that is missing, cut short or of another kind is named before anything is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tokenizers import Tokenizer

from tests.end_to_end.bad_input.saying import (
    INPUT,
    assert_says,
    build,
    copied_model,
    variant,
)


def test_a_model_that_is_not_there_is_named(recipe: Path, tmp_path: Path) -> None:
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model="./nowhere"))
    assert_says(build(changed, tmp_path / "run"), INPUT, "No model at './nowhere'", "a folder, a .gguf file")
    assert not (tmp_path / "run").exists()


def test_truncated_weights_are_named_with_both_sizes(recipe: Path, tmp_path: Path) -> None:
    model = copied_model(recipe, tmp_path)
    weights = model / "model.safetensors"
    size_bytes = weights.stat().st_size
    os.truncate(weights, size_bytes - 100)
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model=str(model)))
    done = build(changed, tmp_path / "run")
    assert_says(done, INPUT, str(weights), f"{size_bytes - 100} bytes", f"its header says {size_bytes}")
    assert not (tmp_path / "run").exists()


def test_a_weight_file_that_the_index_lists_and_the_folder_lacks_is_named(
    recipe: Path, tmp_path: Path
) -> None:
    model = copied_model(recipe, tmp_path)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model=str(model)))
    assert_says(build(changed, tmp_path / "run"), INPUT, "lacks model-00002-of-00002.safetensors")
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_gguf_is_named(recipe: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"<!DOCTYPE html>")
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model=str(weights)))
    assert_says(build(changed, tmp_path / "run"), INPUT, f"{weights} is not a GGUF file")
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_said_to_be_shared_that_is_not_is_refused_with_the_first_token_that_differs(
    recipe: Path, tmp_path: Path
) -> None:
    teacher = copied_model(recipe, tmp_path)
    tokenizer = json.loads((teacher / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    names = {token_id: token for token, token_id in vocabulary.items()}
    vocabulary[names[40]], vocabulary[names[41]] = 41, 40
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    section = {"distillation": {"alignment": "shared"}, "teachers": {"knowledge": {"model": str(teacher)}}}
    changed = variant(recipe, tmp_path, lambda values: values.update(section))
    done = build(changed, tmp_path / "run")
    assert_says(done, INPUT, f"token 40 is {names[40]!r} in the student and {names[41]!r} in the teacher")
    assert not (tmp_path / "run").exists()


def test_a_student_that_is_quantized_already_is_refused(recipe: Path, tmp_path: Path) -> None:
    model = copied_model(recipe, tmp_path)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "fp8"}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model=str(model)))
    assert_says(
        build(changed, tmp_path / "run"), INPUT, "`student.model` is quantized already", "16 or 32 bits"
    )
    assert not (tmp_path / "run").exists()


def test_a_student_whose_tokenizer_has_more_tokens_than_its_embedding_is_refused(
    recipe: Path, tmp_path: Path
) -> None:
    model = copied_model(recipe, tmp_path)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_tokens([f"<extra {number}>" for number in range(40)])
    tokenizer.save(str(model / "tokenizer.json"))
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model=str(model)))
    assert_says(build(changed, tmp_path / "run"), INPUT, "'<extra 39>', and the model's embedding", "rows")
    assert not (tmp_path / "run").exists()
