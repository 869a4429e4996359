"""A scorer around a transformers model.

Questions are read in packs, one row each: [beginning that all contexts share, context 1, its continuations, context 2,
…]. An attention mask shows each context the beginning, each continuation its context too, and nobody the others.
Positions go on from where the text before ends. So nothing is computed twice, padded or cached, and the output head is
applied only where a continuation's token is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgewright.errors import InputError
from edgewright_builder.models.logits import logit_shape
from edgewright_builder.scoring.scorer import ScoreItem
from edgewright_builder.scoring.tokens import encode_pair, shared_tokens

HEAD_ROWS = 128  # positions per matmul with the head: 128 × 128k words × 4 bytes = 65 MB
PACK_TOKENS = 512
PACK_TOKENS_ON_GPU = 4096
TOLERANCE = 1e-2  # of a log-probability: far above rounding, far below what a wrong mask or head does
EVERYBODY = -1  # owns what all that come after it see


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
    """Scores with a causal language model, `pack_tokens` at a time; log-softmax in float32.

    A context too long for the model loses its beginning. Raises InputError for a model whose output is not head ×
    last hidden state, or which does not follow a custom attention mask: both are compared with its plain forward.
    """

    model: Any
    tokenizer: Any
    pack_tokens: int | None = None  # None: what suits the device

    def __post_init__(self) -> None:
        self.model.eval()
        vocabulary = int(self.model.config.vocab_size)
        probe = [token % vocabulary for token in (5, 17, 29, 41, 53)]
        row = TokenRow(probe[:2], [probe[2:4], probe[2:]])
        error = self._score_pack([row, row])[1][1] - plain_log_likelihood(self.model, probe[:2], probe[2:])
        if abs(error) > TOLERANCE:
            name = type(self.model).__name__
            raise InputError(
                f"{name} cannot be scored: shared contexts give log-likelihoods off by {error:.3f}. Choose a model of "
                "another family."
            )

    def score(self, items: Sequence[ScoreItem]) -> list[list[float]]:
        """Scores as `Scorer.score` says."""
        most = self.pack_tokens or (PACK_TOKENS if self.model.device.type == "cpu" else PACK_TOKENS_ON_GPU)
        rows = [self._row(context, continuations) for context, continuations in items]
        return [values for pack in packs(rows, most) for values in self._score_pack(pack)]

    def _row(self, context: str, continuations: Sequence[str]) -> TokenRow:
        bos = self.tokenizer.bos_token_id
        prefix = self.tokenizer.eos_token_id if bos is None else bos
        if prefix is None and not context:
            raise InputError(
                "The model's tokenizer names neither a first nor a last token (`bos_token`, `eos_token`), and one of "
                "them stands for an empty context; add it to tokenizer_config.json."
            )
        pairs = [encode_pair(self.tokenizer.encode, context, text, prefix or 0) for text in continuations]
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
    def _score_pack(self, rows: Sequence[TokenRow]) -> list[list[float]]:
        device, dtype, pack = self.model.device, self.model.dtype, lay_out(rows)
        mask = torch.zeros(pack.visible.shape, dtype=dtype).masked_fill_(
            ~pack.visible, torch.finfo(dtype).min
        )
        hidden = self.model.base_model(
            input_ids=pack.tokens[None].to(device),
            attention_mask=mask[None, None].to(device),
            position_ids=pack.positions[None].to(device),
            use_cache=False,
        ).last_hidden_state[0]
        values = iter(self._log_probabilities(hidden, pack.predicting, pack.predicted))
        return [[sum(next(values) for _ in tokens) for tokens in row.continuations] for row in rows]

    def _log_probabilities(self, hidden: Tensor, predicting: Tensor, predicted: Tensor) -> list[float]:
        """Returns log p of each token `predicted` at the place `predicting` it, from `hidden` (places, width)."""
        head, shaped = self.model.get_output_embeddings(), logit_shape(self.model.config)
        values: list[float] = []
        for start in range(0, len(predicted), HEAD_ROWS):
            some = slice(start, start + HEAD_ROWS)
            logits = shaped(head(hidden[predicting[some].to(hidden.device)])).float()
            chosen = logits.gather(-1, predicted[some, None].to(logits.device))[:, 0]
            values += (chosen - logits.logsumexp(dim=-1)).tolist()
        return values


@dataclass(frozen=True)
class Pack:
    """Items as the model reads them in one row."""

    tokens: Tensor  # (places,)
    positions: Tensor  # (places,)
    visible: Tensor  # (places, places): whether a place sees another
    predicting: (
        Tensor  # (predictions,) the place whose output predicts each token of each continuation, in order
    )
    predicted: Tensor  # (predictions,) those tokens


def lay_out(rows: Sequence[TokenRow]) -> Pack:
    """Returns the items as one row."""
    shared = shared_tokens([row.context for row in rows])
    tokens, positions = list(rows[0].context[:shared]), list(range(shared))
    owners = [(EVERYBODY, EVERYBODY)] * shared  # of each place: its item, its continuation
    predicting: list[int] = []
    for item, row in enumerate(rows):
        end = len(row.context)
        tokens += row.context[shared:]
        positions += range(shared, end)
        owners += [(item, EVERYBODY)] * (end - shared)
        last = len(tokens) - 1
        for number, continuation in enumerate(row.continuations):
            predicting += [last, *range(len(tokens), len(tokens) + len(continuation) - 1)]
            tokens += continuation[:-1]
            positions += range(end, end + len(continuation) - 1)
            owners += [(item, number)] * (len(continuation) - 1)
    predicted = [token for row in rows for continuation in row.continuations for token in continuation]
    columns = (tokens, positions, predicting, predicted)
    ids, places, predicting_places, targets = (torch.tensor(column, dtype=torch.long) for column in columns)
    return Pack(ids, places, _visible(torch.tensor(owners)), predicting_places, targets)


def _visible(owners: Tensor) -> Tensor:
    """owners: (places, 2). Returns (places, places): whether a place sees another one, which comes before it."""
    same = (owners[:, None] == owners[None]) | (owners[None] == EVERYBODY)
    return same.all(dim=-1).tril()


def packs(rows: Sequence[TokenRow], tokens_max: int) -> Iterator[Sequence[TokenRow]]:
    """Yields runs of `rows` that take at most `tokens_max` tokens together; at least one in each."""
    first = 0
    for end in range(1, len(rows) + 1):
        run = rows[first:end]
        saved = shared_tokens([row.context for row in run]) * (len(run) - 1)
        if len(run) > 1 and sum(row.length for row in run) - saved > tokens_max:
            yield rows[first : end - 1]
            first = end - 1
    if first < len(rows):
        yield rows[first:]


@torch.inference_mode()
def plain_log_likelihood(model: Any, context: list[int], continuation: list[int]) -> float:
    """Returns the log-likelihood by its definition: log-softmax over all logits, the continuation's tokens summed."""
    ids = torch.tensor([context + continuation], device=model.device)
    log_probabilities = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), dim=-1)
    targets = ids[0, len(context) :, None]
    return float(log_probabilities[len(context) - 1 : -1].gather(-1, targets).sum())
