"""InferenceService: messages in, messages out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio

from edgewright.v1 import inference_pb2, inference_pb2_grpc
from edgewright_agent.engines import ContinuationScore, Token
from edgewright_agent.inference import Completed, Inference
from edgewright_agent.services.coalescing import coalesced
from edgewright_agent.services.connections import client_of
from edgewright_agent.services.translation import messages
from edgewright_agent.telemetry.proto import energy_window_to_proto

Context = grpc.aio.ServicerContext[Any, Any]
_REASONS = {
    "stop": inference_pb2.FINISH_REASON_STOP,
    "length": inference_pb2.FINISH_REASON_LENGTH,
}


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """See `inference.proto` for what each call promises."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def Generate(  # noqa: N802
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Streams tokens as they come."""
        tokens = self._inference.generate(messages.generation_from(request), client_of(context))
        async with contextlib.aclosing(coalesced(tokens)) as bundles:
            async for bundle in bundles:
                yield _response_of(bundle)

    async def Score(  # noqa: N802
        self, request: inference_pb2.ScoreRequest, context: Context
    ) -> inference_pb2.ScoreResponse:
        """Returns log-likelihoods."""
        results = await self._inference.score(messages.items_from(request), client_of(context))
        return inference_pb2.ScoreResponse(
            items=[
                inference_pb2.ScoreItemResult(continuations=[_score_to(score) for score in scores])
                for scores in results
            ]
        )


def _response_of(events: Sequence[Token | Completed]) -> inference_pb2.GenerateResponse:
    response = inference_pb2.GenerateResponse()
    for event in events:
        if isinstance(event, Token):
            response.deltas.add(text=event.text, token=event.id)
        else:
            response.completion.CopyFrom(_completion_to(event))
    return response


def _completion_to(event: Completed) -> inference_pb2.Completion:
    finish, summary = event.finish, event.summary
    completion = inference_pb2.Completion(
        finish_reason=_REASONS[finish.reason],
        prompt_tokens=finish.prompt_tokens,
        generated_tokens=finish.generated_tokens,
        time_to_first_token_seconds=summary.time_to_first_token_seconds or 0.0,
        time_per_output_token_seconds=summary.time_per_output_token_seconds,
    )
    if summary.energy is not None:
        completion.energy.CopyFrom(energy_window_to_proto(summary.energy))
    return completion


def _score_to(score: ContinuationScore) -> inference_pb2.ContinuationScore:
    return inference_pb2.ContinuationScore(**vars(score))
