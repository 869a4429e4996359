"""What reaches the model is within its vocabulary, whatever its tokenizer makes of a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.model.backend import InvalidRequestError
from edgewright_agent.engine_worker.model.fake import FakeBackend, FakeText
from edgewright_agent.engine_worker.model.grammar import GrammarMaker
from edgewright_agent.engine_worker.requests.limits import limits_of
from edgewright_agent.engine_worker.requests.parse_request import Preparer
from edgewright_agent.engine_worker.requests.threads import Preparation


class TextWithAddedToken(FakeText):
    """A tokenizer that was given a token when the model's embedding was not made larger, and that drops a letter."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Returns the bytes of `text`; a sharp is the added token, a zero-width blank nothing."""
        bytes_of = super().encode(text.replace("\u200b", ""), special=special)
        return [257 if byte == ord("#") else byte for byte in bytes_of]


@pytest.fixture
def preparer(tmp_path: Path) -> Preparer:
    backend = FakeBackend(tmp_path, 512)
    backend.text = TextWithAddedToken()
    grammars = GrammarMaker(backend.text, backend.vocab_size, backend.eos_ids)
    return Preparer(backend, "m", limits_of(backend), Turns(), grammars)


def body(context: str, continuation: str) -> bytearray:
    return bytearray(json.dumps({"items": [{"context": context, "continuations": [continuation]}]}), "utf-8")


@pytest.mark.parametrize(("context", "continuation"), [("a # b", " c"), ("a", " # c"), ("", "#")])
def test_a_token_without_a_row_in_the_embedding_is_refused_where_texts_are_scored(
    preparer: Preparer, context: str, continuation: str
) -> None:
    with pytest.raises(InvalidRequestError, match="each from 0 to 256"):
        preparer.scoring(body(context, continuation), Preparation())


def test_a_continuation_of_which_the_tokenizer_leaves_nothing_has_no_tokens(preparer: Preparer) -> None:
    (((context, continuation),),) = preparer.scoring(body("", "\u200b"), Preparation())
    assert len(context) == 1
    assert continuation == []
