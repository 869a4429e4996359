"""Self-Instruct with a rubric: key phrases → sub-topics → questions → answers → ratings (arXiv 2601.09865, §3.1).

Questions that repeat another or an evaluation file are dropped before T1 answers them, which changes nothing in the
result and saves T1 the work. Rounds go on until enough pairs are left.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from edgewright_builder.data.client import Chat, Client, Completion, TeacherSampling
from edgewright_builder.data.journal import AnswerJournal, digest
from edgewright_builder.data.parsing import (
    parse_answer,
    parse_question,
    parse_topics,
    repeats_itself,
    words,
)
from edgewright_builder.data.presets import Preset
from edgewright_builder.data.prompts import Prompts
from edgewright_builder.data.similarity import Contamination, SeenTexts

if TYPE_CHECKING:
    from edgewright_builder.run.progress import OnProgress

T = TypeVar("T")


@dataclass(frozen=True)
class GenerationSettings:
    """How much data, and what is good enough."""

    pairs: int = 600  # arXiv 2601.09865, section 3.1
    seed: int = 0
    batch_size: int = 32
    sampling: TeacherSampling = field(default_factory=TeacherSampling)
    # "rubric": T1 reads the pair with a rubric and scores it from 1 to 5. "relevance": how much the question raises the
    # answer's log-likelihood, for a local T1 too small to judge. On 64 questions of ARC-Easy's training split
    # SmolLM2-135M's rubric scores told right from shuffled answers no better than a coin (AUC 0.47 to 0.55 by wording),
    # its relevance did (AUC 0.91; right from wrong choices 0.61).
    critic: Literal["rubric", "relevance"] = "rubric"
    minimum_score: float = 3.0  # of 5
    minimum_relevance: float = 0.2  # nats per token
    duplicate_threshold: float = 0.5  # Jaccard similarity of word 2-grams
    minimum_question_words: int = 4
    minimum_answer_words: int = 3
    question_tokens: int = 48
    answer_tokens: int = 80
    maximum_rounds: int = 6


@dataclass(frozen=True)
class Pair:
    """A question with its answer, where it came from and what T1 thought of it."""

    phrase: str
    topic: str
    question: str
    answer: str
    score: float


@dataclass(frozen=True)
class Assignment:
    """What T1 is to write: the subject, the prompts, how much and how good, and what it must not repeat."""

    preset: Preset
    prompts: Prompts
    settings: GenerationSettings
    contamination: Contamination


# What may become of a question, in the order of the checks. Their counts add up to `generated`.
ATTRITION = (
    "question_unparseable",
    "question_too_short",
    "question_repetitive",
    "contaminated",
    "duplicate",
    "answer_unparseable",
    "answer_too_short",
    "answer_repetitive",
    "unrated",
    "below_minimum_score",
    "surplus",
    "kept",
)


class SelfInstruct:
    """One generation: what is asked of T1, and what was kept. `run` does it all."""

    def __init__(
        self, client: Client, assignment: Assignment, journal: AnswerJournal, on_progress: OnProgress
    ) -> None:
        self._client = client
        self._preset = assignment.preset
        self._prompts = assignment.prompts
        self._settings = assignment.settings
        self._contamination = assignment.contamination
        self._journal = journal
        self._on_progress = on_progress
        self._seen = SeenTexts(self._settings.duplicate_threshold)
        self._tokens = 0
        self._seconds = 0.0
        self.pairs: list[Pair] = []
        self.counts: Counter[str] = Counter(dict.fromkeys(("generated", *ATTRITION), 0))

    def run(self) -> list[Pair]:
        """Up to `settings.pairs` pairs; fewer if `maximum_rounds` are over. `counts` says what became of the rest."""
        target = self._settings.pairs
        topics = self._topics()
        for _ in range(self._settings.maximum_rounds):
            wanted = round_size(target, len(self.pairs), self.counts["generated"], self._settings.batch_size)
            first = self.counts["generated"]
            asked = [topics[i % len(topics)] for i in range(first, first + wanted)]
            self.counts["generated"] += wanted
            self._rate(self._answer(self._question(asked)))
            if len(self.pairs) >= target:
                break
        self.counts["surplus"] = max(0, len(self.pairs) - target)
        del self.pairs[target:]
        self.counts["kept"] = len(self.pairs)
        return self.pairs

    def _topics(self) -> list[tuple[str, str]]:
        """(key phrase, sub-topic) in turns over the phrases; a phrase T1 has no sub-topics for stands for itself."""
        phrases = self._preset.key_phrases
        count = min(20, max(4, math.ceil(self._settings.pairs / len(phrases) / 2)))
        chats = [self._prompts.render("topics", preset=self._preset, phrase=p, count=count) for p in phrases]
        completions = self._generate("topics", chats, max_tokens=8 * count, stop=("\n\n",))
        lists = [parse_topics(c.text)[:count] or [p] for c, p in zip(completions, phrases, strict=True)]
        return [
            (phrase, topics[i])
            for i in range(max(map(len, lists)))
            for phrase, topics in zip(phrases, lists, strict=True)
            if i < len(topics)
        ]

    def _question(self, asked: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
        """(phrase, topic, question) of those worth an answer."""
        chats = [self._prompts.render("questions", preset=self._preset, phrase=p, topic=t) for p, t in asked]
        completions = self._generate(
            "questions", chats, max_tokens=self._settings.question_tokens, stop=("\n",)
        )
        kept = []
        for (phrase, topic), completion in zip(asked, completions, strict=True):
            question = parse_question(completion.text)
            fault = self._question_fault(question)
            if question is not None and not fault:
                kept.append((phrase, topic, question))
            else:
                self.counts[fault] += 1
        return kept

    def _question_fault(self, question: str | None) -> str:
        if question is None:
            return "question_unparseable"
        if len(words(question)) < self._settings.minimum_question_words:
            return "question_too_short"
        if repeats_itself(question):
            return "question_repetitive"
        if question in self._contamination:
            return "contaminated"
        return "" if self._seen.add(question) else "duplicate"

    def _answer(self, questions: list[tuple[str, str, str]]) -> list[tuple[str, str, str, str]]:
        """(phrase, topic, question, answer) of those worth a rating."""
        chats = [self._prompts.render("answers", preset=self._preset, question=q) for _, _, q in questions]
        completions = self._generate("answers", chats, max_tokens=self._settings.answer_tokens, stop=("\n",))
        kept = []
        for item, completion in zip(questions, completions, strict=True):
            answer = parse_answer(completion.text)
            if answer is None:
                self.counts["answer_unparseable"] += 1
            elif len(words(answer)) < self._settings.minimum_answer_words:
                self.counts["answer_too_short"] += 1
            elif repeats_itself(answer):
                self.counts["answer_repetitive"] += 1
            else:
                kept.append((*item, answer))
        return kept

    def _rate(self, items: list[tuple[str, str, str, str]]) -> None:
        relevance = self._settings.critic == "relevance"
        minimum = self._settings.minimum_relevance if relevance else self._settings.minimum_score
        scores = self._relevance(items) if relevance else self._rubric(items)
        for item, score in zip(items, scores, strict=True):
            if score is None:
                self.counts["unrated"] += 1
            elif score < minimum:
                self.counts["below_minimum_score"] += 1
            else:
                self.pairs.append(Pair(*item, score=score))

    def _generate(
        self, step: str, chats: list[Chat], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> list[Completion]:
        sampling = self._settings.sampling

        def ask(batch: list[Chat], seed: int) -> list[dict[str, Any]]:
            completions = self._client.generate(
                batch, max_tokens=max_tokens, sampling=sampling, seed=seed, stop=stop
            )
            self._tokens += sum(completion.tokens for completion in completions)
            return [asdict(completion) for completion in completions]

        terms = (max_tokens, asdict(sampling), list(stop))
        return [Completion(**result) for result in self._batches(step, chats, terms, ask)]

    def _rubric(self, items: list[tuple[str, str, str, str]]) -> list[float | None]:
        chats = [
            self._prompts.render("rubric", preset=self._preset, question=question, answer=answer)
            for _, _, question, answer in items
        ]
        return list(
            self._batches("rubric", chats, (), lambda batch, seed: self._client.rate(batch, seed=seed))
        )

    def _relevance(self, items: list[tuple[str, str, str, str]]) -> list[float]:
        pairs = [(question, answer) for _, _, question, answer in items]
        return list(self._batches("relevance", pairs, (), lambda batch, _: self._client.relevance(batch)))

    def _batches(
        self, step: str, chats: list[T], terms: object, ask: Callable[[list[T], int], list[Any]]
    ) -> Iterator[Any]:
        """The results of all batches, from the journal where it has them."""
        size = self._settings.batch_size
        for start in range(0, len(chats), size):
            batch = chats[start : start + size]
            key = digest(
                self._client.identity,
                step,
                self._settings.seed,
                self.counts["generated"],
                start,
                terms,
                batch,
            )
            results = self._journal.get(key)
            if results is None:
                started = time.monotonic()
                results = ask(batch, int(key[:15], 16))
                self._seconds += time.monotonic() - started
                self._journal.put(key, results)
            self._report(step, start + len(batch), len(chats))
            yield from results

    def _report(self, step: str, done: int, total: int) -> None:
        speed = f", {self._tokens / self._seconds:.0f} tokens/s" if self._seconds else ""
        text = f"{step} {done}/{total}{speed}"
        self._on_progress(len(self.pairs), self._settings.pairs, text)


def round_size(target: int, kept: int, generated: int, batch_size: int) -> int:
    """How many questions to ask for next, from the yield so far (at first 4 of 5).

    At least a batch, since less costs T1 as much; at most 2 × target, so that a T1 that fails fails soon.
    """
    share = kept / generated if generated else 0.8
    wanted = math.ceil((target - kept) / max(share, 0.1))
    return min(max(wanted, batch_size), 2 * target)
