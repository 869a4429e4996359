"""Engines: child processes that load a release and speak OpenAI HTTP on a Unix socket."""

from edgewright_agent.engines.launch import available_engines, start_engine
from edgewright_agent.engines.protocol import (
    Death,
    DeathCause,
    Engine,
    EngineInfo,
    EngineLimits,
    EngineMemory,
    Finish,
    FinishReason,
    GenerationRequest,
    Reply,
    Score,
    ScoreItem,
    Token,
)

__all__ = [
    "Death",
    "DeathCause",
    "Engine",
    "EngineInfo",
    "EngineLimits",
    "EngineMemory",
    "Finish",
    "FinishReason",
    "GenerationRequest",
    "Reply",
    "Score",
    "ScoreItem",
    "Token",
    "available_engines",
    "start_engine",
]
