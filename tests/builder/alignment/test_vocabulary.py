from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from edgewright.errors import InputError
from edgewright_builder.alignment.vocabulary import read_vocabulary, vocabulary_of
from tests.support.tiny_tokenizers import TEXT, byte_level, normalizing, sentencepiece

KINDS = {
    "byte-level": byte_level(420),
    "byte-level, single digits": byte_level(380, digits=True),
    "SentencePiece": sentencepiece(520),
    "SentencePiece with a prefix": sentencepiece(500, prefix=True),
    "SentencePiece across words": sentencepiece(600, across_words=True),
}
ANY_TEXT = st.text(max_size=60) | st.sampled_from(TEXT.split("\n"))


class Loaded:
    """As transformers loads a fast tokenizer."""

    def __init__(self, backend: Tokenizer | None) -> None:
        self.backend_tokenizer = backend


@pytest.mark.parametrize("kind", KINDS)
@given(text=ANY_TEXT)
@settings(max_examples=60, deadline=None)
def test_the_tokens_texts_written_one_after_the_other_are_the_text(kind: str, text: str) -> None:
    vocabulary = vocabulary_of(Loaded(KINDS[kind]), kind)
    encoding = vocabulary.encode(text)
    written = b"".join(vocabulary.texts[token] for token in encoding.ids)
    assert written in (text.encode(), vocabulary.prefix + text.encode())
    ends = vocabulary.token_ends(text, encoding)
    assert ends == sorted(end for end in ends if end is not None)
    assert (ends or [0])[-1] == len(text.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_cut_as_within_another_text(kind: str) -> None:
    vocabulary = vocabulary_of(Loaded(KINDS[kind]), kind)
    wanted = [b" unbelievable", b" 2024", b" the"]
    pieces = vocabulary.first_piece(wanted)
    for text, piece in zip(wanted, pieces, strict=True):
        assert piece is not None
        assert text.startswith(piece)
    assert vocabulary.first_piece([b"\xe6\x9d"]) == [None]  # half a character can't be cut alone


@given(text=st.text(alphabet="abﬁ ½①é 東", max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_tokenizer_that_rewrites_its_text_ends_tokens_where_it_says(text: str) -> None:
    assume(unicodedata.normalize("NFKC", text) != text)
    vocabulary = vocabulary_of(Loaded(normalizing(400)), "NFKC")
    known = [end for end in vocabulary.token_ends(text, vocabulary.encode(text)) if end is not None]
    assert known == sorted(known)
    for end in known:
        text.encode()[:end].decode()  # a boundary between characters


def test_truncation_and_padding_that_a_file_keeps_cut_no_text(tmp_path: Path) -> None:
    plain = byte_level(420)
    cutting = Tokenizer.from_str(plain.to_str())
    cutting.enable_truncation(8)
    cutting.enable_padding(length=32)
    cutting.save(str(tmp_path / "tokenizer.json"))
    for text in (TEXT, "a"):
        assert read_vocabulary(tmp_path).encode(text).ids == plain.encode(text).ids


def test_a_text_of_which_a_tokenizer_makes_no_token_has_no_ends() -> None:
    vocabulary = vocabulary_of(Loaded(Tokenizer(models.BPE())), "empty")
    encoding = vocabulary.encode("any text")
    assert vocabulary.token_ends("any text", encoding) == []


def test_a_special_token_stands_for_no_text() -> None:
    vocabulary = vocabulary_of(Loaded(byte_level(400)), "x")
    end = vocabulary.tokenizer.token_to_id("<|end|>")
    assert end in vocabulary.special
    assert end not in vocabulary.texts
    assert vocabulary.token_ends("a<|end|>", vocabulary.encode("a<|end|>")) == [1, 8]


def test_a_teacher_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Old has no fast tokenizer \(tokenizer.json\)"):
        vocabulary_of(Loaded(None), "Old")
    with pytest.raises(InputError, match="has no fast tokenizer"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer.json is not readable"):
        read_vocabulary(tmp_path)
