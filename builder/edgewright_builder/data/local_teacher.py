"""T1 as a transformers model on this machine: batches share their prompts' beginning and are sampled from one seed.

`generate` of transformers is not used because it computes the few-shot examples again for every prompt and goes on
with rows that are done until the last one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from edgewright.errors import InputError
from edgewright_builder.data.data_teacher import (
    Chat,
    Completion,
    Rating,
    TeacherSampling,
    cut_at_stop,
    without_system,
)
from edgewright_builder.models.folder import cache_argument
from edgewright_builder.scoring.local import LocalScorer

SCORES = ("1", "2", "3", "4", "5")
# Below this share of the next token's probability the five digits are no answer to "give a score".
MINIMUM_SCORE_MASS = 0.5


@dataclass
class LocalClient:
    """T1 from a causal language model and its tokenizer, both loaded by the caller.

    Raises InputError if the tokenizer has no chat template.
    """

    model: Any
    tokenizer: Any
    identity: str

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputError(
                f"T1 must have a chat template and {self.identity} has none: use an instruction-tuned model."
            )
        self.model.eval()

    @torch.inference_mode()
    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_tokens: int,
        sampling: TeacherSampling,
        seed: int,
        stop: Sequence[str] = (),
    ) -> list[Completion]:
        """Generates as `Client.generate` says, equally on the same machine with the same number of threads."""
        generator = torch.Generator(device=self.model.device).manual_seed(seed)
        rows = [_Row() for _ in chats]
        logits, batch = self._prefill(self._tokens(chats))
        for _ in range(max_tokens):
            tokens = sample(logits, sampling, generator)
            for index, token in zip(batch.rows, tokens.tolist(), strict=True):
                self._append(rows[index], token, stop)
            keep = [i for i, index in enumerate(batch.rows) if not rows[index].done]
            if not keep:
                break
            if len(keep) < 0.8 * len(batch.rows):
                batch.select(keep)
                tokens = tokens[keep]
            logits = batch.step(self.model, tokens)
        return [Completion(self._text(row, stop), len(row.tokens), row.done) for row in rows]

    @torch.inference_mode()
    def rate(self, chats: Sequence[Chat], *, seed: int) -> list[Rating]:
        """Returns the expected digit under the model's own next-token probabilities; `seed` is not needed."""
        del seed
        ids = [self.tokenizer.encode(digit, add_special_tokens=False)[-1] for digit in SCORES]
        logits, _ = self._prefill(self._tokens(chats))
        mass = torch.softmax(logits.float(), dim=-1)[:, ids]  # (batch, 5)
        digits = torch.arange(1, 6, dtype=mass.dtype, device=mass.device)
        total = mass.sum(dim=-1)
        expected = (mass * digits).sum(dim=-1) / total
        return [
            Rating(
                round(score, 4) if share >= MINIMUM_SCORE_MASS else None,
                f"digits 1 to 5 with {share:.0%} of the next token's probability",
            )
            for score, share in zip(expected.tolist(), total.tolist(), strict=True)
        ]

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Returns (log p(answer | question) − log p(answer)) / tokens of the answer, as `Client.relevance` says."""
        items = [
            (context, [f" {answer}"])
            for question, answer in pairs
            for context in (f"Question: {question}\nAnswer:", "Answer:")
        ]
        scores = [values[0] for values in LocalScorer(self.model, self.tokenizer).score(items)]
        tokens = [len(self.tokenizer.encode(f" {answer}", add_special_tokens=False)) for _, answer in pairs]
        gains = zip(scores[::2], scores[1::2], tokens, strict=True)
        return [round((given - alone) / count, 4) for given, alone, count in gains]

    def _tokens(self, chats: Sequence[Chat]) -> list[list[int]]:
        return [list(self.tokenizer.encode(self._rendered(chat), add_special_tokens=False)) for chat in chats]

    def _rendered(self, chat: Chat) -> str:
        """Returns the chat as T1's template writes it, without its system turn where that is refused.

        Gemma 2's template knows none: what it would say then begins the first question. Raises InputError.
        """
        try:
            return self._written(chat)
        except Exception as error:  # noqa: BLE001 - whatever the template raises
            fault = " ".join(str(error).split())
        try:
            return self._written(without_system(chat))
        except Exception:  # noqa: BLE001 - the first error says more
            raise InputError(
                f"The chat template of T1, {self.identity}, can't write its prompts ({fault}); use another model, or "
                "prompts of your own in `data.prompts`."
            ) from None

    def _written(self, chat: Chat) -> str:
        text: str = self.tokenizer.apply_chat_template(
            chat,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # where it can
        )
        return text

    def _prefill(self, prompts: list[list[int]]) -> tuple[Tensor, _Batch]:
        """Runs the common beginning once, then what differs, left-padded. Returns the last logits."""
        shared = min(common_prefix_length(prompts), min(map(len, prompts)) - 1)
        device = self.model.device
        cache, cache_name = DynamicCache(config=self.model.config), cache_argument(self.model)
        if shared > 0:
            start = torch.tensor([prompts[0][:shared]], device=device)
            self.model(input_ids=start, logits_to_keep=1, use_cache=True, **{cache_name: cache})
            cache.batch_repeat_interleave(len(prompts))
        width = max(map(len, prompts)) - shared
        ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
        mask = torch.zeros(len(prompts), shared + width, dtype=torch.long, device=device)
        mask[:, :shared] = 1
        for i, prompt in enumerate(prompts):
            rest = torch.tensor(prompt[shared:], device=device)
            ids[i, width - len(rest) :] = rest
            mask[i, shared + width - len(rest) :] = 1
        batch = _Batch(list(range(len(prompts))), mask, cache, cache_name)
        return batch.forward(self.model, ids), batch

    def _append(self, row: _Row, token: int, stop: Sequence[str]) -> None:
        if row.done:
            return
        row.tokens.append(token)
        ends = self.model.generation_config.eos_token_id
        row.done = (
            token in (ends if isinstance(ends, list) else [ends]) or token == self.tokenizer.eos_token_id
        )
        if not row.done and stop:
            row.done = cut_at_stop(self._decode(row), stop) is not None

    def _decode(self, row: _Row) -> str:
        return str(self.tokenizer.decode(row.tokens, skip_special_tokens=True))

    def _text(self, row: _Row, stop: Sequence[str]) -> str:
        text = self._decode(row)
        cut = cut_at_stop(text, stop)
        return (text if cut is None else cut).strip()


@dataclass
class _Row:
    tokens: list[int] = field(default_factory=list)
    done: bool = False


@dataclass
class _Batch:
    """The rows still running: their indices, attention mask (rows, tokens so far) and KV cache.

    The model extends the cache in place, and takes it as `cache_name`.
    """

    rows: list[int]
    mask: Tensor
    cache: DynamicCache
    cache_name: str

    def forward(self, model: Any, ids: Tensor) -> Tensor:
        """Runs `ids` (rows, new tokens) after the cache; returns the last logits (rows, vocabulary)."""
        positions = (self.mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self.cache_name: self.cache},
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def step(self, model: Any, tokens: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=-1)
        return self.forward(model, tokens[:, None])

    def select(self, keep: list[int]) -> None:
        index = torch.tensor(keep, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]
        self.rows = [self.rows[i] for i in keep]


def sample(
    logits: Tensor, sampling: TeacherSampling, generator: torch.Generator, shortlist: int = 256
) -> Tensor:
    """Returns one token per row of `logits` (rows, vocabulary) by nucleus sampling (Holtzman et al., arXiv 1904.09751).

    Sorting a whole vocabulary for each token costs more than the model does at this size, so the nucleus is looked
    for among the `shortlist` most likely tokens first; the result is the same.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    top, index = probabilities.topk(min(shortlist, probabilities.shape[-1]), dim=-1)
    tokens = _draw(top, index, sampling.top_p, generator)
    flat = top.sum(dim=-1) < sampling.top_p
    if bool(flat.any()):
        tokens[flat] = _draw(*probabilities[flat].sort(dim=-1, descending=True), sampling.top_p, generator)
    return tokens


def _draw(probabilities: Tensor, index: Tensor, top_p: float, generator: torch.Generator) -> Tensor:
    """Returns one of `index` per row, by its descending probabilities (rows, n), without the tail after `top_p`."""
    before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = probabilities.masked_fill(before >= top_p, 0.0)
    choice = torch.multinomial(nucleus, 1, generator=generator)
    return index.gather(-1, choice)[:, 0]


def common_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Returns how many first tokens all rows share."""
    columns: Iterator[tuple[int, ...]] = zip(*rows, strict=False)
    length = 0
    for column in columns:
        if len(set(column)) > 1:
            break
        length += 1
    return length
