"""Engines: child processes that load a release and speak OpenAI HTTP to this machine alone."""

from edgewright_agent.engines.engine_kinds import available_engines, format_of, prepare_engine, start_engine
from edgewright_agent.engines.process.death import Death, DeathCause
from edgewright_agent.engines.process.memory import EngineMemory
from edgewright_agent.engines.protocol.engine import Engine
from edgewright_agent.engines.protocol.launch import EngineInfo, EngineLimits
from edgewright_agent.engines.protocol.requests import (
    ContinuationScore,
    Finish,
    FinishReason,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
)

__all__ = [
    "ContinuationScore",
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
    "ScoreItem",
    "Token",
    "available_engines",
    "format_of",
    "prepare_engine",
    "start_engine",
]
