"""A GGUF file as a source: its text is cut as llama.cpp cuts it for that file."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from tokenizers import Tokenizer

from edgewright.errors import InputError
from edgewright_builder.models.gguf_source import read_tokenizer
from tests.support.gguf_tokenizers import KINDS, SIZE, SPECIAL, some_texts, write
from tests.support.tiny_tokenizers import byte_level

BLANKS = "words of its own"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != BLANKS])
def test_each_kind_of_tokenizer_is_read_back_from_its_gguf_file(kind: str, tmp_path: Path) -> None:
    tokenizer = KINDS[kind]()
    read = read_tokenizer(write(tokenizer, tmp_path))
    different = {
        text: (theirs, ours)
        for text in some_texts()
        if (theirs := tokenizer.encode(text, add_special_tokens=False).ids)
        != (ours := read.encode(text, add_special_tokens=False))
    }
    assert different == {}


def test_a_word_of_blanks_that_would_be_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="as a word of its own, token"):
        read_tokenizer(write(KINDS[BLANKS](), tmp_path))


@pytest.mark.parametrize("name", ["starcoder", "refact"])
def test_other_names_for_digits_that_stand_alone_are_known(name: str, tmp_path: Path) -> None:
    file = named(byte_level(SIZE, SPECIAL, digits=True), name, tmp_path)
    encoding = read_tokenizer(file).backend_tokenizer.encode("y 2024", add_special_tokens=False)
    assert encoding.tokens[-4:] == ["2", "0", "2", "4"]


def test_a_way_to_cut_that_nobody_here_knows_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'chameleon', which is not known here"):
        read_tokenizer(named(byte_level(SIZE, SPECIAL), "chameleon", tmp_path))


def named(tokenizer: Tokenizer, name: str, folder: Path) -> Path:
    """The tokenizer's file, which calls its way to cut `name`."""
    reader = gguf.GGUFReader(write(tokenizer, folder))
    out = folder / "named.gguf"
    writer = gguf.GGUFWriter(str(out), "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value, kinds = field.contents(), field.types
        if key == "tokenizer.ggml.pre":
            value = name
        writer.add_key_value(key, value, kinds[0], sub_type=kinds[-1] if len(kinds) > 1 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return out
