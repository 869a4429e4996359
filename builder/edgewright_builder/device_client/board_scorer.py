"""Accuracy of the bytes that serve: a `scoring.scorer.Scorer` that asks the board."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.errors import BusyError
from edgewright.v1 import inference_pb2 as inference
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.messages import asking

BATCH_ITEMS = 64
# A batch of 64 long questions at 50 prompt tokens a second.
DEADLINE_SECONDS = 600.0
BUSY_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class RemoteScorer:
    """Log-likelihoods from the active release of a board.

    `score` blocks, so call it in a thread while `loop`, to which the client belongs, runs.
    """

    client: DeviceClient
    loop: asyncio.AbstractEventLoop

    def score(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """log p(continuation | context), natural, summed over tokens, per item and continuation."""
        return asyncio.run_coroutine_threadsafe(score(self.client, items), self.loop).result()


async def score(client: DeviceClient, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
    """Returns the same, for callers on the loop. Raises the client's errors."""
    scores: list[list[float]] = []
    for start in range(0, len(items), BATCH_ITEMS):
        with asking("log-likelihoods"):
            batch = [
                inference.ScoreItem(context=context, continuations=continuations)
                for context, continuations in items[start : start + BATCH_ITEMS]
            ]
        results = await _score_batch(client, batch)
        scores += [
            [continuation.log_likelihood for continuation in result.continuations] for result in results
        ]
    return scores


async def require_scores(client: DeviceClient) -> None:
    """Has a word scored, and raises what the board has against it: before questions are fetched, not after."""
    await score(client, [("Does it answer?", [" yes"])])


async def _score_batch(
    client: DeviceClient, batch: list[inference.ScoreItem]
) -> list[inference.ScoreItemResult]:
    patience = Patience(BUSY_PATIENCE_SECONDS)
    while True:
        try:
            return await client.score(batch, deadline_seconds=DEADLINE_SECONDS)
        except BusyError as error:  # somebody else is being served
            await patience.wait(error)
