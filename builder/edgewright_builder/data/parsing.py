"""Finds what was asked for in what T1 wrote. Lenient on form and strict on substance, because small models wander."""

from __future__ import annotations

import re

_MARKER = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):]|#+)\s*")
_LABEL = re.compile(r"^\s*\**(?:question|answer|q|a|score)\**\s*:\s*\**\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")
_SCALE = re.compile(r"\b1\s*(?:-|–|to)\s*5\b")
_SCORE = re.compile(r"(?<![\d.])([1-5])(?:\.0)?(?![\d.]*\d)")
MAXIMUM_TOPIC_WORDS = 8
SHOWN_CHARACTERS = 160
SENTENCES_MAX = 3  # of an answer


def parse_topics(text: str) -> list[str]:
    """Returns sub-topics from a list by lines or by commas, without markers, repetitions and whole sentences."""
    topics: dict[str, str] = {}
    for part in re.split(r"[\n,;]", text):
        topic = _strip(part).rstrip(".")
        if topic and len(topic.split()) <= MAXIMUM_TOPIC_WORDS and not topic.endswith(":"):
            topics.setdefault(topic.lower(), topic)
    return list(topics.values())


def parse_question(text: str) -> str | None:
    """Returns the first question of the text: everything from the first line to its question mark, None without one."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    line = _strip(lines[0])
    end = line.rfind("?")
    return line[: end + 1] if end > 0 else None


def parse_answer(text: str) -> str | None:
    """Returns the first few whole sentences of the first paragraph, None if there is no whole sentence."""
    paragraph = " ".join(_strip(text.strip().split("\n\n")[0]).split())
    ends = [match.end() for match in _SENTENCE_END.finditer(paragraph)][:SENTENCES_MAX]
    return paragraph[: ends[-1]] if ends else None


def parse_score(text: str) -> float | None:
    """Returns the first whole score from 1 to 5; "4/5" is 4, and "1 to 5", "10" and "3.7" are none."""
    match = _SCORE.search(_SCALE.sub("", text))
    return float(match.group(1)) if match else None


def words(text: str) -> list[str]:
    """Returns lower-case words and numbers, without punctuation: two texts are compared by these."""
    return re.findall(r"\w+(?:['’]\w+)?", text.lower())


def repeats_itself(text: str) -> bool:
    """Whether a small model fell into a loop: three words in a row come twice."""
    tokens = words(text)
    grams = [tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)]
    return len(set(grams)) < len(grams)


def shown(value: object) -> str:
    """Returns a value for an error message: its representation, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _strip(line: str) -> str:
    line = _LABEL.sub("", _MARKER.sub("", line)).strip()
    return line.strip('*"“” ').strip()
