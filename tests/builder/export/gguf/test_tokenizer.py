"""llama.cpp's own server cuts a text into the same tokens as the checkpoint's tokenizer, whatever kind that is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import httpx
import pytest
from tokenizers import Tokenizer

from edgewright.errors import InputError
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.export.gguf.pre_tokenizer import QWEN_2, pre_tokenizer_name
from edgewright_builder.parity.llama_server import running
from tests.support.gguf_tokenizers import KINDS, SIZE, SPECIAL, TEMPLATE, cutting, some_texts, write
from tests.support.gptq_checkpoints import FAMILIES, random_checkpoint
from tests.support.tiny_tokenizers import byte_level


@pytest.fixture(params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[httpx.Client, Tokenizer]]:
    tokenizer = KINDS[request.param]()
    with running(write(tokenizer, tmp_path), tmp_path) as http:
        yield http, tokenizer


def tokens_of(http: httpx.Client, text: str, *, add_special: bool = False) -> list[int]:
    body = {"content": text, "add_special": add_special, "parse_special": True}
    return [int(token) for token in http.post("/tokenize", json=body).json()["tokens"]]


def test_each_kind_of_tokenizer_cuts_every_text_alike_and_gives_it_back(
    served: tuple[httpx.Client, Tokenizer],
) -> None:
    http, tokenizer = served
    different = {
        text: (theirs, ours)
        for text in some_texts()
        if (theirs := tokenizer.encode(text, add_special_tokens=False).ids) != (ours := tokens_of(http, text))
    }
    assert different == {}
    ids = tokenizer.encode("Plants need 12 Über 東京", add_special_tokens=False).ids
    written = http.post("/detokenize", json={"tokens": ids}).json()["content"]
    assert written.lstrip(" ") == tokenizer.decode(ids).lstrip(" ")


@pytest.mark.parametrize("bos", [True, False])
def test_a_text_begins_with_bos_where_the_tokenizer_says_so_and_the_template_is_rendered(
    bos: bool, tmp_path: Path
) -> None:
    tokenizer = byte_level(SIZE, SPECIAL)
    with running(write(tokenizer, tmp_path, bos=bos), tmp_path) as http:
        begins = tokens_of(http, "water", add_special=True)[0] == tokenizer.token_to_id("<s>")
        messages = [{"role": "user", "content": "hi"}]
        prompt = http.post("/apply-template", json={"messages": messages}).json()["prompt"]
    assert begins is bos
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n"


def test_ends_and_beginnings_are_those_of_the_settings(tmp_path: Path) -> None:
    tokenizer = byte_level(SIZE, SPECIAL)
    fields = gguf.GGUFReader(write(tokenizer, tmp_path)).fields
    for name, text in (("bos", "<s>"), ("eos", "</s>")):
        field = fields[f"tokenizer.ggml.{name}_token_id"]
        assert field.contents() == tokenizer.token_to_id(text)


def with_files(tokenizer: Tokenizer, folder: Path, **files: Any) -> Mapping[str, Any]:
    """The fields of the GGUF file of a checkpoint to which JSON files are added."""
    write(tokenizer, folder)
    checkpoint = folder / "checkpoint"
    for name, value in files.items():
        (checkpoint / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    write_gguf(checkpoint, 8, folder / "again.gguf", "tiny")
    return gguf.GGUFReader(folder / "again.gguf").fields


def test_every_end_of_the_generation_settings_is_in_the_file_unless_llama_cpp_knows_it(
    tmp_path: Path,
) -> None:
    tokenizer = byte_level(SIZE, SPECIAL)
    ends = [tokenizer.token_to_id(name) for name in ("</s>", "<|im_end|>", "<|im_start|>")]
    fields = with_files(tokenizer, tmp_path, generation_config={"eos_token_id": ends})
    assert fields["tokenizer.ggml.eos_token_id"].contents() == ends[0]
    assert fields["tokenizer.ggml.eot_token_id"].contents() == ends[2]
    assert "tokenizer.ggml.eom_token_id" not in fields


def test_more_ends_than_the_file_has_room_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has room for 2 of them"):
        with_files(byte_level(SIZE, SPECIAL), tmp_path, generation_config={"eos_token_id": [5, 6, 7, 8]})


def test_of_several_chat_templates_the_default_is_written(tmp_path: Path) -> None:
    templates = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": TEMPLATE}]
    settings = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": templates}
    fields = with_files(byte_level(SIZE, SPECIAL), tmp_path, tokenizer_config=settings)
    assert fields["tokenizer.chat_template"].contents() == TEMPLATE


@pytest.mark.parametrize("bos", [True, False])
def test_truncation_and_padding_of_the_tokenizer_s_file_change_nothing(bos: bool, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(byte_level(SIZE, SPECIAL).to_str())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    fields = gguf.GGUFReader(write(tokenizer, tmp_path, bos=bos)).fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is bos


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "no pre-tokenizer that cuts as this model's does: Whitespace"),
        ({"pre_tokenizer": None}, "no pre-tokenizer that cuts as this model's does: none"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}}, "Unigram; llama.cpp's export takes BPE"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_llama_cpp_has_none_for_is_named(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(FAMILIES["llama"], tmp_path / "checkpoint", 32)
    document = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8")) | change
    (checkpoint / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match=named):
        write_gguf(checkpoint, 8, tmp_path / "model.gguf", "tiny")
    assert not (tmp_path / "model.gguf").exists()


def test_a_pattern_that_differs_in_a_letter_is_no_known_one() -> None:
    document = json.loads(cutting(QWEN_2.replace(r"\p{N}", r"\p{N}{1,2}")).to_str())
    with pytest.raises(InputError, match="Serve it with another engine"):
        pre_tokenizer_name(document)
