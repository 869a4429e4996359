"""Reads the log-probabilities of prompt tokens from a server's answer, and holds the tokens against those sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.alignment.vocabulary import Vocabulary

TOKEN_ID = re.compile(r"token_id:(\d+)")
TOKENS_MAX = 2**31  # as they are kept on disk
LOG_MAX = 0.01  # of a log-probability, rounding aside
SUM_MAX = 1.01  # rounding aside, probabilities add up to at most 1


class WrongAnswerError(Exception):
    """The server's answer has no log-probabilities, or too few: another form of the question may help."""


@dataclass(frozen=True)
class Row:
    """The most likely tokens at one place, most likely first, with their log-probabilities in nats."""

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]


def rows_of(
    answer: Mapping[str, Any], tokens: Sequence[int], top_k: int, vocabulary: Vocabulary
) -> list[Row]:
    """Returns a row for each of `tokens` but the first.

    Raises WrongAnswerError for an answer without them, InputError where the server reads the tokens differently.
    """
    try:
        choice = answer["choices"][0]
        given = choice.get("prompt_logprobs") or answer.get("prompt_logprobs")
        places = _listed(given, vocabulary) if given else _echoed(choice["logprobs"], vocabulary)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise WrongAnswerError("the answer holds none") from None
    if len(places) < len(tokens):
        raise InputError(
            f"T2's server reads {len(places)} tokens where {len(tokens)} were sent: its tokenizer is not the published "
            "one. Name the right one in `teachers.knowledge.tokenizer`."
        )
    read = places[1 : len(tokens)]
    for token, place in zip(tokens[1:], read, strict=True):
        _require_same(token, place, vocabulary)
    wanted, counts = min(top_k, len(vocabulary.names)), [len(place.entries) for place in read]
    # Texts that are equal are one entry, so of texts some places hold fewer.
    named = min(counts) if all(place.has_ids for place in read) else max(counts)
    if named < wanted:
        raise WrongAnswerError(f"{named} of the {wanted} asked for at a token")
    return [_row(place.entries, wanted) for place in read]


def _require_same(token: int, place: _Place, vocabulary: Vocabulary) -> None:
    other = place.holds_sent and token not in dict(place.entries)
    if other or (place.sent is not None and place.sent != token):
        raise InputError(
            f"T2's server read token {token}, {vocabulary.names.get(token)!r}, as {place.text!r}: its tokenizer is "
            "not the published one. Name the right one in `teachers.knowledge.tokenizer`."
        )


@dataclass(frozen=True)
class _Place:
    entries: Sequence[tuple[int, float]]  # token id, or −1 for an unknown one, and its log-probability
    sent: int | None = None  # the token that the server read there, where it can be told
    text: str = ""
    holds_sent: bool = False  # the token that was sent is among the entries, however unlikely
    has_ids: bool = True  # the server named tokens by their ids, not by their texts


def _listed(places: Sequence[Mapping[str, Any] | None], vocabulary: Vocabulary) -> list[_Place]:
    """Returns vLLM's places: token id → its log-probability, rank and text. The token itself may come on top."""
    return [_Place([]) if place is None else _listed_place(place, vocabulary) for place in places]


def _listed_place(place: Mapping[str, Any], vocabulary: Vocabulary) -> _Place:
    entries = [(_known(int(token)), float(entry["logprob"])) for token, entry in place.items()]
    for token, entry in place.items():
        text = entry.get("decoded_token")
        if text and not _is_text_of(int(token), text, vocabulary):
            return _Place(entries, -1, str(text))
    return _Place(entries, holds_sent=True)


def _known(token: int) -> int:
    """Returns the token, or −1 for a number that is none."""
    return token if 0 <= token < TOKENS_MAX else -1


def _is_text_of(token: int, text: str, vocabulary: Vocabulary) -> bool:
    """Whether a server's text may be this token's: spaces before it and parts of characters are written variously."""
    own = vocabulary.texts.get(token)
    if own is None or "\ufffd" in text or text == vocabulary.names.get(token):
        return True
    return text.strip() == own.decode(errors="replace").strip() or "\ufffd" in own.decode(errors="replace")


def _echoed(logprobs: Mapping[str, Any], vocabulary: Vocabulary) -> list[_Place]:
    """Returns the places of OpenAI's `echo`; what was generated after the prompt comes last and is not looked at."""
    ids = _ids_of_texts(vocabulary)

    def token_of(text: str) -> int:
        match = TOKEN_ID.fullmatch(text)
        return _known(int(match[1])) if match else ids.get(text, -1)

    places = []
    for text, top in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True):
        entries = [(token_of(key), float(value)) for key, value in (top or {}).items()]
        sent = token_of(text)
        has_ids = all(TOKEN_ID.fullmatch(key) for key in top or {})
        places.append(_Place(entries, None if sent < 0 else sent, text, has_ids=has_ids))
    return places


def _ids_of_texts(vocabulary: Vocabulary) -> dict[str, int]:
    """Returns the token of each text that one token alone has."""
    texts: dict[str, int] = {}
    for token, data in vocabulary.texts.items():
        text = data.decode(errors="replace")
        texts[text] = -1 if text in texts else token
    return texts


def _row(entries: Sequence[tuple[int, float]], top_k: int) -> Row:
    if any(not value <= LOG_MAX for _, value in entries):  # NaN, too
        raise InputError(
            "T2's server gives log-probabilities that are none, above 0 or not a number; check what serves there."
        )
    best = sorted(entries, key=lambda entry: -entry[1])[:top_k]
    if sum(math.exp(value) for _, value in best) > SUM_MAX:
        raise InputError(
            "T2's server gives probabilities that add up to more than 1: it does not give the model's own "
            "log-probabilities (vLLM: --logprobs-mode raw_logprobs)."
        )
    return Row(tuple(token for token, _ in best), tuple(value for _, value in best))
