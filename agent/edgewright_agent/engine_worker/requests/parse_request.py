"""From the bytes of a body to what the model is asked for. Runs in a thread of `threads`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.model.backend import Backend, InvalidRequestError, SamplingSettings
from edgewright_agent.engine_worker.model.grammar import Grammar, GrammarMaker
from edgewright_agent.engine_worker.requests.bodies import (
    BodyType,
    ChatBody,
    CompletionBody,
    ResponseFormat,
    ScoreBody,
    parse_body,
)
from edgewright_agent.engine_worker.requests.json_size import count_values
from edgewright_agent.engine_worker.requests.limits import RequestLimits
from edgewright_agent.engine_worker.requests.prompts import BoundedEncoder, check_context, split_tokens
from edgewright_agent.engine_worker.requests.threads import Preparation

AnyBody = TypeVar("AnyBody", CompletionBody, ChatBody)
TokenPair = tuple[list[int], list[int]]  # a context and one continuation


@dataclass(frozen=True)
class GenerationTask:
    """A request for text, ready for the model. Its body's text is not kept."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: SamplingSettings
    stops: tuple[str, ...]
    ignore_eos: bool
    alternatives: int | None  # to report beside each token's log-probability; None: report none at all
    grammar: Grammar | None
    stream: bool
    include_usage: bool
    return_token_ids: bool


class Preparer:
    """Prepares requests for one model. Its methods may be called from several threads."""

    def __init__(
        self,
        backend: Backend,
        model: str,
        limits: RequestLimits,
        prompt_memory: Turns,
        grammars: GrammarMaker,
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._prompt_memory = prompt_memory
        self._grammars = grammars
        self.model = model
        self._names = {model}  # all it ever had: a request may have been sent just before a switch

    def rename(self, model: str) -> None:
        """Gives the model another name, which later answers bear."""
        self.model = model
        self._names.add(model)

    def completion(self, data: bytearray, preparation: Preparation) -> GenerationTask:
        """Prepares `/v1/completions`. Raises InvalidRequestError."""
        body = self._parsed(CompletionBody, data)
        self._check_model(body.model)
        prompt: Sequence[int]
        if isinstance(body.prompt, str):
            prompt = self._encoder(preparation).encode(body.prompt, special=True)
        else:
            prompt = body.prompt
        return self._task(body, prompt, body.max_tokens, preparation)

    def chat(self, data: bytearray, preparation: Preparation) -> GenerationTask:
        """Prepares `/v1/chat/completions`. Raises InvalidRequestError."""
        body = self._parsed(ChatBody, data)
        self._check_model(body.model)
        preparation.stage = "rendering its messages with the chat template"
        text = preparation.interruptible(lambda: self._backend.text.chat(body.chat))
        prompt = self._encoder(preparation).encode(text, special=False)
        return self._task(body, prompt, body.max_completion_tokens or body.max_tokens, preparation)

    def scoring(self, data: bytearray, preparation: Preparation) -> list[list[TokenPair]]:
        """Prepares `/v1/score`: the pairs of each item. Raises InvalidRequestError."""
        body = self._parsed(ScoreBody, data)
        encoder = self._encoder(preparation)
        items = [
            [split_tokens(encoder, item.context, text) for text in item.continuations] for item in body.items
        ]
        for context, continuation in (pair for pairs in items for pair in pairs):
            self._check_tokens(context + continuation)
            check_context(len(context), len(continuation), self._limits.context_tokens)
        return items

    def _parsed(self, kind: type[BodyType], data: bytearray) -> BodyType:
        self._limits.check_values(count_values(data, self._limits.json_values))
        return parse_body(kind, data)

    def _check_model(self, name: str | None) -> None:
        if name is not None and name not in self._names:
            message = f"There is no model {name[:100]!r} here; {self.model!r} is served."
            raise InvalidRequestError(message, "model_not_found", 404)

    def _encoder(self, preparation: Preparation) -> BoundedEncoder:
        return BoundedEncoder(self._backend.text, self._limits, self._prompt_memory, preparation)

    def _task(
        self, body: AnyBody, prompt: Sequence[int], max_tokens: int | None, preparation: Preparation
    ) -> GenerationTask:
        context_tokens = self._limits.context_tokens
        self._check_tokens(prompt)
        check_context(len(prompt), max_tokens or 1, context_tokens)
        preparation.stage = "compiling its JSON schema"
        grammar = self._grammar(body.response_format)
        return GenerationTask(
            prompt=prompt,
            max_tokens=max_tokens or context_tokens - len(prompt),
            sampling=body.sampling,
            stops=tuple(body.stop),
            ignore_eos=body.ignore_eos,
            alternatives=body.alternatives,
            grammar=grammar,
            stream=bool(body.stream),
            include_usage=body.include_usage,
            return_token_ids=bool(body.return_token_ids),
        )

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        """Raises InvalidRequestError for none, and for one without a row in the embedding.

        A tokenizer may have such tokens, and the model's error would end the answers of all.
        """
        vocab_size = self._backend.vocab_size
        if not tokens or not all(0 <= token < vocab_size for token in tokens):
            raise InvalidRequestError(f"The prompt must have tokens, each from 0 to {vocab_size - 1}.")

    def _grammar(self, form: ResponseFormat | None) -> Grammar | None:
        schema = None if form is None else form.schema_to_follow
        return None if schema is None else self._grammars.make(schema)
