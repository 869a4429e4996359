"""A knowledge teacher behind HTTP: a tiny model that gives the log-probabilities of a prompt's tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.teacher_server import Reply, json_reply

Form = Literal["vllm", "echo with ids", "echo with texts", "none"]


@dataclass
class KnowledgeModel:
    """Answers /completions as a server of this kind does. `before` may answer in its place."""

    model: Any
    tokenizer: Any
    form: Form = "vllm"
    name: str = "big"
    fewer: int = 0  # log-probabilities that it leaves out
    before: Callable[[dict[str, Any]], Reply | None] = lambda _: None
    most_at_once: int = field(default=0, init=False)
    _now: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __call__(self, body: dict[str, Any]) -> Reply:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            return self.before(body) or self._answer(body)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, body: dict[str, Any]) -> Reply:
        if "prompt_logprobs" in body:
            if self.form == "none":
                return json_reply({"model": self.name, "choices": [{"text": "x", "logprobs": None}]})
            if self.form != "vllm":
                return json_reply({"error": {"message": "prompt_logprobs: extra fields not permitted"}}, 422)
            places: list[Any] = [None, *self._places(body["prompt"], body["prompt_logprobs"] - self.fewer)]
            return json_reply({"model": self.name, "choices": [{"text": "x", "prompt_logprobs": places}]})
        if self.form in ("none", "vllm"):
            return json_reply({"error": {"message": "echo is not supported"}}, 400)
        logprobs = self._echoed(body["prompt"], body["logprobs"] - self.fewer)
        return json_reply({"model": self.name, "choices": [{"text": "x", "logprobs": logprobs}]})

    def _log_probabilities(self, tokens: list[int]) -> Any:
        import torch

        with self._lock, torch.inference_mode():
            return self.model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)

    def _places(self, tokens: list[int], top_k: int) -> list[Any]:
        places = []
        for row, token in zip(self._log_probabilities(tokens), tokens[1:], strict=False):
            named = row.topk(top_k).indices.tolist()
            ids = [token, *named] if token not in named else named
            places.append(
                {
                    str(i): {"logprob": float(row[i]), "rank": n, "decoded_token": self.tokenizer.decode([i])}
                    for n, i in enumerate(ids, 1)
                }
            )
        return places

    def _echoed(self, tokens: list[int], top_k: int) -> dict[str, Any]:
        def name(token: int) -> str:
            return f"token_id:{token}" if self.form == "echo with ids" else self.tokenizer.decode([token])

        tops: list[Any] = [None]
        for row in self._log_probabilities(tokens)[:-1]:
            best = row.topk(top_k)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            tops.append({name(token): value for token, value in pairs})
        generated = name(tokens[0])  # one token comes after the prompt
        return {"tokens": [*map(name, tokens), generated], "top_logprobs": [*tops, {generated: -0.1}]}
