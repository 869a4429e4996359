"""Self-Instruct with a critic: key phrases → sub-topics → questions → answers → ratings (arXiv 2601.09865, §3.1).

Questions that repeat another or an evaluation file are dropped before T1 answers them, which changes nothing in the
result and saves T1 the work. Rounds go on until enough pairs are left.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from edgewright.errors import InputError
from edgewright_builder.data.data_teacher import Chat, Client, Completion
from edgewright_builder.data.drop_counts import attrition_line
from edgewright_builder.data.early_stop import FirstAnswers
from edgewright_builder.data.generation_settings import ATTRITION, Assignment, Pair
from edgewright_builder.data.journal import AnswerJournal, digest
from edgewright_builder.data.parsing import parse_answer, parse_question, parse_topics
from edgewright_builder.data.similarity import SeenTexts

if TYPE_CHECKING:
    from edgewright_builder.run.progress import OnProgress

T = TypeVar("T")
Written = tuple[Any, str]  # a result as the journal holds it, and what T1 wrote


class SelfInstruct:
    """One generation: what is asked of T1, and what was kept. `run` does it all."""

    def __init__(
        self, client: Client, assignment: Assignment, journal: AnswerJournal, on_progress: OnProgress
    ) -> None:
        self._client = client
        self._assignment = assignment
        self._preset = assignment.preset
        self._prompts = assignment.prompts
        self._settings = assignment.settings
        self._journal = journal
        self._on_progress = on_progress
        self._first = FirstAnswers(assignment)
        self._seen = SeenTexts(self._settings.duplicate_threshold)
        self._tokens = 0
        self._seconds = 0.0
        self.pairs: list[Pair] = []
        self.counts: Counter[str] = Counter(dict.fromkeys(("generated", *ATTRITION), 0))

    def run(self) -> list[Pair]:
        """Returns up to `settings.pairs` pairs, fewer if `maximum_rounds` are over.

        `counts` says what became of the rest. Raises InputError where T1's first answers are all of no use.
        """
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
        """Returns (key phrase, sub-topic) in turns over the phrases; a phrase without sub-topics stands for itself."""
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
        """Returns (phrase, topic, question) of those worth an answer."""
        chats = [self._prompts.render("questions", preset=self._preset, phrase=p, topic=t) for p, t in asked]
        completions = self._generate(
            "questions", chats, max_tokens=self._settings.question_tokens, stop=("\n",)
        )
        kept = []
        for (phrase, topic), completion in zip(asked, completions, strict=True):
            question = parse_question(completion.text)
            fault = self._assignment.question_fault(question)
            if not fault and question is not None and not self._seen.add(question):
                fault = "duplicate"
            if question is not None and not fault:
                kept.append((phrase, topic, question))
            else:
                self.counts[fault] += 1
        return kept

    def _answer(self, questions: list[tuple[str, str, str]]) -> list[tuple[str, str, str, str]]:
        """Returns (phrase, topic, question, answer) of those worth a rating."""
        chats = [self._prompts.render("answers", preset=self._preset, question=q) for _, _, q in questions]
        completions = self._generate("answers", chats, max_tokens=self._settings.answer_tokens, stop=("\n",))
        kept = []
        for item, completion in zip(questions, completions, strict=True):
            answer = parse_answer(completion.text)
            fault = self._assignment.answer_fault(answer)
            if answer is not None and not fault:
                kept.append((*item, answer))
            else:
                self.counts[fault] += 1
        return kept

    def _rate(self, items: list[tuple[str, str, str, str]]) -> None:
        scores = self._relevance(items) if self._settings.critic == "relevance" else self._rubric(items)
        for item, score in zip(items, scores, strict=True):
            fault = self._assignment.score_fault(score)
            if score is not None and not fault:
                self.pairs.append(Pair(*item, score=score))
            else:
                self.counts[fault] += 1

    def _generate(
        self, step: str, chats: list[Chat], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> list[Completion]:
        sampling = self._settings.sampling

        def ask(batch: list[Chat], seed: int) -> list[Written]:
            completions = self._client.generate(
                batch, max_tokens=max_tokens, sampling=sampling, seed=seed, stop=stop
            )
            self._tokens += sum(completion.tokens for completion in completions)
            return [
                ({"text": c.text, "tokens": c.tokens, "complete": c.complete}, c.text or c.remark)
                for c in completions
            ]

        terms = (max_tokens, asdict(sampling), list(stop))
        return [Completion(**result) for result in self._batches(step, chats, terms, ask)]

    def _rubric(self, items: list[tuple[str, str, str, str]]) -> list[float | None]:
        chats = [
            self._prompts.render("rubric", preset=self._preset, question=question, answer=answer)
            for _, _, question, answer in items
        ]

        def ask(batch: list[Chat], seed: int) -> list[Written]:
            return [(rating.score, rating.text) for rating in self._client.rate(batch, seed=seed)]

        return list(self._batches("rubric", chats, (), ask))

    def _relevance(self, items: list[tuple[str, str, str, str]]) -> list[float]:
        def ask(batch: list[tuple[str, str]], _: int) -> list[Written]:
            return [(score, f"{score:g}") for score in self._client.relevance(batch)]

        pairs = [(question, answer) for _, _, question, answer in items]
        return list(self._batches("relevance", pairs, (), ask))

    def _batches(
        self, step: str, items: list[T], terms: object, ask: Callable[[list[T], int], list[Written]]
    ) -> Iterator[Any]:
        """Yields the results of all batches, from the journal where it has them.

        A batch that shows that T1 can't do the step is not kept: a better T1 of the same name is asked again.
        """
        size = self._settings.batch_size
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            key = digest(
                self._client.identity, step, self._settings.seed, self.counts["generated"], start, terms, batch
            )  # fmt: skip
            results = self._journal.get(key)
            if results is not None:
                self._require_some_use(step, [(result, "") for result in results])
            else:
                started = time.monotonic()
                written = ask(batch, int(key[:15], 16))
                self._seconds += time.monotonic() - started
                self._require_some_use(step, written)
                results = [result for result, _ in written]
                self._journal.put(key, results)
            self._report(step, start + len(batch), len(items))
            yield from results

    def _require_some_use(self, step: str, written: list[Written]) -> None:
        complaint = self._first.complaint(
            step, [result for result, _ in written], [text for _, text in written]
        )
        if complaint:
            raise InputError(
                f"T1 {self._client.identity} left no pair for {self._preset.task} "
                f"({attrition_line(self.counts)}): {complaint}. Take an instruction-tuned model that can do this, or "
                "change `data.prompts` or the filters; then run again with --resume."
            )

    def _report(self, step: str, done: int, total: int) -> None:
        speed = f", {self._tokens / self._seconds:.0f} tokens/s" if self._seconds else ""
        text = f"{step} {done}/{total}{speed}"
        self._on_progress(len(self.pairs), self._settings.pairs, text)


def round_size(target: int, kept: int, generated: int, batch_size: int) -> int:
    """Returns how many questions to ask for next, from the yield so far (at first 4 of 5).

    At least a batch, since less costs T1 as much; at most 2 × target, so that a T1 that fails fails soon.
    """
    share = kept / generated if generated else 0.8
    wanted = math.ceil((target - kept) / max(share, 0.1))
    return min(max(wanted, batch_size), 2 * target)
