"""A scorer around a transformers model.

Each context is read once, and the output head is applied only where a continuation's token is predicted.

A context and its continuations form one row, [context, c1, c2, …]. An attention mask shows each continuation the
context and itself, and its positions go on from the context's end, so nothing is computed twice and nothing cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgewright.errors import InputError
from edgewright_builder.scoring.scorer import ScoreItem
from edgewright_builder.scoring.tokens import encode_pair

HEAD_ROWS = 256  # positions per matmul with the head: 256 × 128k words × 4 bytes = 131 MB
TOLERANCE = 1e-2  # of a log-probability: far above rounding, far below what a wrong mask or head does


@dataclass(frozen=True)
class TokenRow:
    """The tokens of one item; the model reads the context and each continuation without its last token."""

    context: list[int]
    continuations: list[list[int]]

    @property
    def length(self) -> int:
        """How many tokens the model reads."""
        return len(self.context) + sum(len(tokens) - 1 for tokens in self.continuations)


@dataclass(frozen=True)
class LocalScorer:
    """Scores with a causal language model, `batch_tokens` padded tokens at a time; log-softmax in float32.

    A context too long for the model loses its beginning. Raises InputError for a model whose output is not head ×
    last hidden state, or which does not follow a custom attention mask: both are compared with its plain forward.
    """

    model: Any
    tokenizer: Any
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        self.model.eval()
        vocabulary = int(self.model.config.vocab_size)
        probe = [token % vocabulary for token in (5, 17, 29, 41, 53)]
        row = TokenRow(probe[:2], [probe[2:4], probe[2:]])
        error = self._score_rows([row])[0][1] - plain_log_likelihood(self.model, probe[:2], probe[2:])
        if abs(error) > TOLERANCE:
            name = type(self.model).__name__
            raise InputError(
                f"{name} cannot be scored: shared contexts give log-likelihoods off by {error:.3f}. Choose a model of "
                "another family."
            )

    def score(self, items: Sequence[ScoreItem]) -> list[list[float]]:
        """Scores as `Scorer.score` says. Rows of similar length run together."""
        rows = [self._row(context, continuations) for context, continuations in items]
        order = sorted(range(len(rows)), key=lambda i: rows[i].length)
        results: list[list[float]] = [[] for _ in items]
        for batch in batches(order, lambda i: rows[i].length, self.batch_tokens):
            for i, values in zip(batch, self._score_rows([rows[i] for i in batch]), strict=True):
                results[i] = values
        return results

    def _row(self, context: str, continuations: Sequence[str]) -> TokenRow:
        bos = self.tokenizer.bos_token_id
        prefix = self.tokenizer.eos_token_id if bos is None else bos
        pairs = [encode_pair(self.tokenizer.encode, context, text, prefix) for text in continuations]
        for text, (_, tokens) in zip(continuations, pairs, strict=True):
            if not tokens:
                raise InputError(
                    f"The choice {text!r} has no token of its own after {context[-40:]!r}, so it can't be scored. "
                    "Reword the question or the choice."
                )
        longest = max(len(tokens) for _, tokens in pairs)
        room = int(self.model.config.max_position_embeddings) + 1 - longest
        return TokenRow(pairs[0][0][-room:], [tokens for _, tokens in pairs])

    @torch.inference_mode()
    def _score_rows(self, rows: list[TokenRow]) -> list[list[float]]:
        device = self.model.device
        width = max(row.length for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.zeros_like(ids)
        visible = torch.eye(width, dtype=torch.bool).expand(len(rows), 1, width, width).clone()
        for i, row in enumerate(rows):
            lay_out(row, ids[i], positions[i], visible[i, 0])
        mask = torch.zeros(visible.shape, dtype=self.model.dtype).masked_fill(
            ~visible, torch.finfo(self.model.dtype).min
        )
        hidden = self.model.base_model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            use_cache=False,
        ).last_hidden_state
        wanted = [
            (i, place, token)
            for i, row in enumerate(rows)
            for places in predicted(row)
            for place, token in places
        ]
        values = iter(self._log_probabilities(hidden, wanted))
        return [[sum(next(values) for _ in tokens) for tokens in row.continuations] for row in rows]

    def _log_probabilities(self, hidden: Tensor, wanted: list[tuple[int, int, int]]) -> list[float]:
        """Returns log p of each token at (row, place), from `hidden` (rows, places, width)."""
        head = self.model.get_output_embeddings()
        row, place, token = (
            torch.tensor(column, device=hidden.device) for column in zip(*wanted, strict=True)
        )
        values: list[float] = []
        for start in range(0, len(wanted), HEAD_ROWS):
            some = slice(start, start + HEAD_ROWS)
            logits = head(hidden[row[some], place[some]]).float()
            chosen = logits.gather(-1, token[some, None])[:, 0]
            values += (chosen - logits.logsumexp(dim=-1)).tolist()
        return values


def lay_out(row: TokenRow, ids: Tensor, positions: Tensor, visible: Tensor) -> None:
    """Fills one row's `ids` (width,), `positions` (width,) and `visible` (width, width), all in place."""
    end = len(row.context)
    ids[:end] = torch.tensor(row.context)
    positions[:end] = torch.arange(end)
    visible[:end, :end] = torch.ones(end, end, dtype=torch.bool).tril()
    start = end
    for tokens in row.continuations:
        n = len(tokens) - 1
        ids[start : start + n] = torch.tensor(tokens[:-1], dtype=torch.long)
        positions[start : start + n] = torch.arange(end, end + n)
        visible[start : start + n, :end] = True
        visible[start : start + n, start : start + n] = torch.ones(n, n, dtype=torch.bool).tril()
        start += n


def predicted(row: TokenRow) -> Iterator[list[tuple[int, int]]]:
    """Yields per continuation (place in the row whose output predicts it, token) of each token."""
    last = len(row.context) - 1
    start = last + 1
    for tokens in row.continuations:
        yield list(zip([last, *range(start, start + len(tokens) - 1)], tokens, strict=True))
        start += len(tokens) - 1


def batches(order: Sequence[int], length: Callable[[int], int], batch_tokens: int) -> Iterator[list[int]]:
    """Yields runs of `order` whose count times longest length stays within `batch_tokens`; at least one in each."""
    batch: list[int] = []
    longest = 0
    for i in order:
        longest = max(longest, length(i))
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch, longest = [], length(i)
        batch.append(i)
    if batch:
        yield batch


@torch.inference_mode()
def plain_log_likelihood(model: Any, context: list[int], continuation: list[int]) -> float:
    """Returns the log-likelihood by its definition: log-softmax over all logits, the continuation's tokens summed."""
    ids = torch.tensor([context + continuation], device=model.device)
    log_probabilities = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), dim=-1)
    targets = ids[0, len(context) :, None]
    return float(log_probabilities[len(context) - 1 : -1].gather(-1, targets).sum())
