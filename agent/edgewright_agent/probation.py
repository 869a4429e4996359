"""Required probes: what a candidate must show before it becomes active."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from edgewright_agent.engines import Engine, GenerationRequest, Token
from edgewright_agent.errors import EdgewrightError
from edgewright_agent.manifest import GoldenPrompt, Manifest


@dataclass(frozen=True)
class Probe:
    """What one probe found."""

    name: str
    passed: bool
    detail: str  # expected and actual value
    required: bool = True


async def run_probes(engine: Engine, manifest: Manifest, budget_bytes: int) -> tuple[Probe, ...]:
    """All probes in order; those after a failed one are left out."""
    probes = [await _ready(engine)]
    if probes[-1].passed and manifest.golden is not None:
        probes.append(await _golden_prompt(engine, manifest.golden))
    if probes[-1].passed:
        probes.append(peak_memory(engine, budget_bytes))
    return tuple(probes)


def peak_memory(engine: Engine, budget_bytes: int) -> Probe:
    """The engine's process tree has stayed within the budget since its start."""
    memory = engine.memory_bytes()
    detail = f"peak {memory.peak_bytes} bytes ({memory.measure}), budget {budget_bytes} bytes"
    return Probe("peak_memory", memory.peak_bytes <= budget_bytes, detail)


async def _ready(engine: Engine) -> Probe:
    ready = await engine.healthy()
    return Probe("ready", ready, "the engine answers" if ready else "the engine does not answer")


async def _golden_prompt(engine: Engine, golden: GoldenPrompt) -> Probe:
    """The host's greedy tokens come out here too: the bytes, the tokenizer and the kernels are right."""
    request = GenerationRequest(prompt=golden.prompt, max_tokens=len(golden.tokens), temperature=0.0)
    tokens: list[int] = []
    try:
        async with contextlib.aclosing(engine.generate(request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    tokens.append(event.id)
    except EdgewrightError as error:
        return Probe("golden_prompt", False, str(error))
    same = tuple(tokens) == golden.tokens
    first = next(
        (i for i, pair in enumerate(zip(tokens, golden.tokens, strict=False)) if pair[0] != pair[1]), None
    )
    where = f"differ at {first}" if first is not None else f"{len(tokens)} of {len(golden.tokens)} came"
    detail = (
        f"{len(tokens)} greedy tokens as on the host"
        if same
        else f"expected the host's greedy tokens: {where}"
    )
    return Probe("golden_prompt", same, detail)
