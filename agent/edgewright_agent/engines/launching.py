"""How an engine's process is started, and how it is spoken to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgewright_agent.engines.protocol import Finish, GenerationRequest, Reply, Score, ScoreItem, Token


class EngineHttp(Protocol):
    """The engine's HTTP in the agent's terms. Raises what `Engine` says."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        """Tokens as they come, then a Finish."""
        ...

    async def score(self, items: Sequence[ScoreItem]) -> list[list[Score]]:
        """One Score per continuation."""
        ...

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Switches the adapter; later requests name `model`."""
        ...

    async def healthy(self) -> bool:
        """Whether the engine answers and can generate."""
        ...

    def relay(self, method: str, route: str, body: bytes) -> AbstractAsyncContextManager[Reply]:
        """See `Engine`."""
        ...


@dataclass(frozen=True)
class Launch:
    """One engine about to be started."""

    command: Sequence[str]
    environment: Mapping[str, str]
    http: EngineHttp
    cpus: frozenset[int] | None = None  # that the process and its children may run on; None: as the agent
    several_processes: bool = False  # which end together
