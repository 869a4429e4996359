"""Tokens become text one by one, whatever a model draws: a SentencePiece vocabulary that falls back to bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from edgewright_agent.engine_worker.model.backend import InvalidRequestError
from edgewright_agent.engine_worker.model.fake import EOS, FakeText
from edgewright_agent.engine_worker.model.logprobs import TextOffsets
from edgewright_agent.engine_worker.model.tokenizer import ModelText

PIECES = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "▁b", "over"]
IDS = {piece: index for index, piece in enumerate(PIECES)}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> ModelText:
    """As Llama 2, TinyLlama, Mistral, Phi-3 and Gemma have it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.BPE(vocab=IDS, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return ModelText(folder)


@pytest.mark.parametrize("config", ["{}", '{"eos_token": "<unheard of>"}'])
def test_without_a_first_or_last_token_nothing_stands_for_an_empty_context(
    config: str, tmp_path: Path
) -> None:
    Tokenizer(models.BPE(vocab=IDS, merges=[])).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(InvalidRequestError, match="neither a first nor a last token"):
        _ = ModelText(tmp_path).prefix_id


def bytes_of(character: str) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in character.encode()]


def spoken(text: ModelText, pieces: list[str]) -> str:
    decode = text.decoder()
    return "".join(decode(IDS[piece]) for piece in pieces)


def test_a_byte_that_makes_no_character_takes_none_before_it_along(text: ModelText) -> None:
    assert spoken(text, ["▁a", *bytes_of("😀"), "<0xF0>", "▁b", "over"]) == "a😀\ufffd bover"


@given(st.lists(st.sampled_from(["▁a", "▁b", "over", "é", "😀"]), min_size=1))
def test_what_is_text_comes_out_as_it_is(text: ModelText, parts: list[str]) -> None:
    pieces = [piece for part in parts for piece in (bytes_of(part) if part in "é😀" else [part])]
    assert spoken(text, pieces) == "".join(parts).replace("▁", " ").removeprefix(" ")


@given(st.lists(st.sampled_from(PIECES)))
def test_no_sequence_of_tokens_fails(text: ModelText, pieces: list[str]) -> None:
    said = spoken(text, pieces)
    assert said.count("over") == pieces.count("over")


def test_tokens_begin_where_they_do_in_the_text_also_inside_a_character_and_after_a_special_token() -> None:
    offsets = TextOffsets(FakeText())
    tokens = [*"aé".encode(), EOS, *"😀b".encode()]
    assert [offsets.next(token) for token in tokens] == [0, 1, 1, 2, 2, 2, 2, 2, 3]
