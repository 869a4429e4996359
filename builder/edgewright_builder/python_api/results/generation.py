"""Text as a board generates it: what `Board.generate` and `AsyncBoard.generate` return."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.errors import InputError, OutsideError
from edgewright.v1.inference_pb2 import GenerateResponse
from edgewright_builder.device_client.messages import from_message
from edgewright_builder.show.sheet import Lines, Sheet, shown

if TYPE_CHECKING:
    from edgewright_builder.python_api.loop import LoopThread


@dataclass(frozen=True)
class ChatTurn:
    """One message of a conversation."""

    role: str  # system, user, assistant
    content: str


@dataclass(frozen=True)
class RequestEnergy:
    """Energy of one request: arrival to first token, first to last token."""

    rail: str
    prefill_joules: float
    decode_joules: float


@shown
@dataclass(frozen=True)
class Completion:
    """How a generation ended and what it took, measured on the board."""

    text: str
    finish_reason: str  # stop, length
    prompt_tokens: int
    generated_tokens: int
    time_to_first_token_seconds: float
    time_per_output_token_seconds: float | None
    energy: RequestEnergy | None

    @property
    def line(self) -> str:
        """The figures in one line."""
        parts = [
            f"{self.prompt_tokens} + {self.generated_tokens} tokens, {self.finish_reason}",
            f"TTFT {self.time_to_first_token_seconds * 1e3:.0f} ms",
        ]
        if self.time_per_output_token_seconds:
            parts.append(f"{1 / self.time_per_output_token_seconds:.1f} tokens/s")
        if self.energy is not None:
            joules = self.energy.prefill_joules + self.energy.decode_joules
            parts.append(f"{joules:.2f} J ({self.energy.rail})")
        return " · ".join(parts)

    def _sheet(self) -> Sheet:
        return Sheet((Lines([self.text]), Lines([self.line], "dim")))


class AsyncGeneration:
    """The text of one request, piece by piece: `async for piece in generation`. Leaving it frees the board's engine."""

    def __init__(self, responses: AsyncGenerator[GenerateResponse, None], host: str) -> None:
        self._responses = responses
        self._host = host
        self._pieces: list[str] = []
        self._completion: Completion | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self._texts()

    async def _texts(self) -> AsyncGenerator[str, None]:
        try:
            async for response in self._responses:
                for delta in response.deltas:
                    if delta.text:
                        self._pieces.append(delta.text)
                        yield delta.text
                if response.HasField("completion"):
                    text = "".join(self._pieces)
                    self._completion = from_message(Completion, response.completion, text=text)
            if self._completion is None:
                raise OutsideError(f"{self._host} ended the text without saying why; see the agent's log.")
        finally:
            await self._responses.aclose()

    async def result(self) -> Completion:
        """Returns the whole text and its figures, once all of it is there."""
        if self._completion is None:
            async for _ in self:
                pass
        return self.completion

    @property
    def completion(self) -> Completion:
        """The whole text and its figures. Raises InputError before the last piece has come."""
        if self._completion is None:
            raise InputError("The generation has not ended; read all its pieces, or call result().")
        return self._completion

    async def aclose(self) -> None:
        """Stops the generation on the board."""
        await self._responses.aclose()


class Generation:
    """The text of one request, piece by piece: `for piece in generation`. Leaving it frees the board's engine."""

    def __init__(self, loop: LoopThread, generation: AsyncGeneration) -> None:
        self._loop = loop
        self._generation = generation

    def __iter__(self) -> Iterator[str]:
        return self._loop.iterate(self._generation._texts())

    def result(self) -> Completion:
        """Returns the whole text and its figures, once all of it is there."""
        return self._loop.run(self._generation.result())

    @property
    def completion(self) -> Completion:
        """The whole text and its figures. Raises InputError before the last piece has come."""
        return self._generation.completion

    def close(self) -> None:
        """Stops the generation on the board."""
        self._loop.run(self._generation.aclose())
