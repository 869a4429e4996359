"""llama.cpp's own server cuts a text into the same tokens as the checkpoint's tokenizer, whatever kind that is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import httpx
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers, processors

from edgewright.errors import InputError
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.export.gguf.pre_tokenizer import GPT_4O, LLAMA_3, QWEN_2, TEKKEN, pre_tokenizer_name
from edgewright_builder.parity.llama_server import running
from tests.support.gptq_checkpoints import FAMILIES, random_checkpoint
from tests.support.tiny_tokenizers import byte_level, sentencepiece

SIZE = 420
SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def cutting(pattern: str, whole_words: bool = False) -> Tokenizer:
    """A byte-level BPE that cuts by a pattern; with `whole_words`, one of the vocabulary skips the merges."""
    document = json.loads(byte_level(SIZE, SPECIAL).to_str())
    document["model"]["ignore_merges"] = whole_words
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    return tokenizer


def with_words_of_its_own() -> Tokenizer:
    """Tokens that are cut out of a text before all else, one of them beginning with a blank."""
    tokenizer = Tokenizer.from_str(byte_level(SIZE - 2, SPECIAL).to_str())
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("  ", normalized=False)])
    return tokenizer


KINDS: Mapping[str, Callable[[], Tokenizer]] = {
    "GPT-2": lambda: byte_level(SIZE, SPECIAL),
    "SmolLM": lambda: byte_level(SIZE, SPECIAL, digits=True),
    "Llama 3": lambda: cutting(LLAMA_3, whole_words=True),
    "DBRX, Phi-4": lambda: cutting(LLAMA_3),
    "Qwen 2": lambda: cutting(QWEN_2),
    "Tekken": lambda: cutting(TEKKEN, whole_words=True),
    "GPT-4o": lambda: cutting(GPT_4O),
    "SentencePiece": lambda: sentencepiece(SIZE, SPECIAL),
    "SentencePiece, a space before": lambda: sentencepiece(SIZE, SPECIAL, prefix=True),
    "words of its own": with_words_of_its_own,
}
TEXTS = (
    "In 2024 the river rose by 17 metres.", "It's we'll I'VE they'd", "  two  blanks   three ",
    "tab\tand\r\nlines\n\n\n",
    "Über den Wolken, ça va", "東京 is a city 🙂🙂", "a\u0301e\u0308", "x = f(a[0], b)//c  # no", "CamelCase and UPPER",
    "<|im_start|>user\nhi<|im_end|>", "123456789", "...!?—“q”", "\u00a0\u2003wide", "<tool>x  y<tool>",
)  # fmt: skip
LETTERS = "aeiounrst ATHE  019'\n.,-_/ßé東я🙂\t"


def some_texts() -> list[str]:
    draw = random.Random(0)
    return [*TEXTS, *("".join(draw.choices(LETTERS, k=draw.randint(1, 40))) for _ in range(150))]


def write(tokenizer: Tokenizer, folder: Path, *, bos: bool = False) -> Path:
    """A checkpoint with this tokenizer, as a GGUF file."""
    config = {**FAMILIES["llama"], "vocab_size": tokenizer.get_vocab_size() + 3}  # padded, as many models are
    checkpoint = random_checkpoint(config, folder / "checkpoint", 32)
    if bos:
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATE}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    write_gguf(checkpoint, 8, folder / "model.gguf", "tiny")
    return folder / "model.gguf"


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
