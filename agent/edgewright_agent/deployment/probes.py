"""Probes: what a candidate must show before it becomes active, and what else people want to know of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from edgewright.errors import EdgewrightError
from edgewright.manifest import GoldenPrompt, Manifest
from edgewright.sizes import format_bytes
from edgewright_agent.benchmark.prompts import shuffles, words_for
from edgewright_agent.engines import Engine, GenerationRequest, Token
from edgewright_agent.runtime.threads import within
from edgewright_agent.store import StagedRelease
from edgewright_agent.telemetry.types import EnergyWindow

PROBES_SECONDS_MAX = 600.0  # all of them together; an engine that hangs must not hold the board
UNTOLD = GenerationRequest(prompt="The", max_tokens=16, ignore_eos=True)  # timed where no golden prompt is
CHAT = GenerationRequest(messages=[{"role": "user", "content": "Say hello."}], max_tokens=8)
CHAT_SECONDS_MAX = 120.0  # eight tokens; a template that loops is given up earlier by engines that bound it
TOKENIZER_FOLDER = "tokenizer"
SLOW_RATIO = 0.7  # of the predicted rate: below it the prediction, or the board, is wrong
COSTLY_RATIO = 1.5  # of the predicted energy


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe."""

    name: str
    passed: bool
    detail: str  # expected and actual value
    required: bool = True


@dataclass(frozen=True)
class BoardSensors:
    """The readings of the board that probes and swaps need."""

    available_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available)
    # Of a request admitted, given its first and its last token at these seconds; None: no sensor, or a gap.
    energy: Callable[[float, float, float], EnergyWindow | None] = lambda admitted, first, last: None


@dataclass(frozen=True)
class TrialConditions:
    """The conditions on which a candidate is tried."""

    budget_bytes: int
    senses: BoardSensors = field(default_factory=BoardSensors)
    kills_before: int = 0  # for memory, where the candidate is tried in an engine that was here before


@dataclass(frozen=True)
class _Run:
    """The tokens and times of one generation."""

    prompt_tokens: int
    tokens: tuple[int, ...]
    ttft_seconds: float
    tpot_seconds: float
    energy: EnergyWindow | None


async def run_probes(
    engine: Engine, release: StagedRelease, trial: TrialConditions
) -> tuple[ProbeResult, ...]:
    """Returns the result of each probe in order; those after a failed required one are left out."""
    manifest = release.manifest
    probes = [await _ready(engine)]
    if probes[-1].passed and manifest.golden is not None:
        probes.append(await _golden_prompt(engine, manifest.golden))
    if probes[-1].passed and has_chat_template(release.model_tree / TOKENIZER_FOLDER):
        probes.append(await _chat(engine))
    if probes[-1].passed:
        probes += await _performance(engine, manifest, trial.senses)
    probes += _kernels(engine)
    if all(probe.passed for probe in probes if probe.required):
        probes += memory_probes(engine, trial)
    return tuple(probes)


def memory_probes(engine: Engine, trial: TrialConditions) -> tuple[ProbeResult, ...]:
    """Returns the probes that must hold at the end of the probation too."""
    return (_peak_memory(engine, trial.budget_bytes), _no_out_of_memory(engine, trial))


def _peak_memory(engine: Engine, budget_bytes: int) -> ProbeResult:
    """Probes that the engine's process tree has stayed within the budget since its start."""
    memory = engine.memory()
    peak, budget = format_bytes(memory.peak_bytes), format_bytes(budget_bytes)
    detail = f"peak {peak} ({memory.measure}), budget {budget}"
    return ProbeResult("peak_memory", memory.peak_bytes <= budget_bytes, detail)


def _no_out_of_memory(engine: Engine, trial: TrialConditions) -> ProbeResult:
    """Probes that no allocation failed in the engine, and that the kernel killed none of its processes for memory."""
    found = engine.out_of_memory_kills()
    kills, counted = found.count - trial.kills_before, f"counted among {found.among.value}"
    line = engine.shortage_line()
    if kills > 0:
        detail = f"the kernel killed {kills} processes for memory during the trial ({counted})"
    elif line is not None:
        detail = f"the engine said: {line}"
    else:
        detail = f"nothing ran out of memory (kills are {counted})"
    return ProbeResult("no_out_of_memory", kills <= 0 and line is None, detail)


async def _ready(engine: Engine) -> ProbeResult:
    ready = await engine.healthy()
    return ProbeResult("ready", ready, "the engine answers" if ready else "the engine does not answer")


async def _golden_prompt(engine: Engine, golden: GoldenPrompt) -> ProbeResult:
    """Probes that the host's greedy tokens come out here too: then bytes, tokenizer and kernels are right."""
    try:
        tokens = (await _generate(engine, _request(golden))).tokens
    except EdgewrightError as error:
        return ProbeResult("golden_prompt", False, str(error))
    same = golden.same_tokens(tokens)
    if same == len(golden.tokens):
        return ProbeResult("golden_prompt", True, f"{same} greedy tokens as on the host")
    if golden.accepts(tokens):
        lead = f"a near tie (lead {golden.leads[same]:.2f} nats) went another way"
        return ProbeResult("golden_prompt", True, f"{same} greedy tokens as on the host, then {lead}")
    came = f"differ at {same}" if same < len(tokens) else f"{same} of {len(golden.tokens)} came"
    return ProbeResult("golden_prompt", False, f"expected the host's greedy tokens: {came}")


async def _chat(engine: Engine) -> ProbeResult:
    """Probes that the model's chat template renders in time, and that the engine answers what it renders."""
    try:
        run = await within(CHAT_SECONDS_MAX, _generate(engine, CHAT))
    except asyncio.TimeoutError:
        return ProbeResult("chat", False, f"the chat was not answered within {CHAT_SECONDS_MAX:g} s")
    except EdgewrightError as error:
        return ProbeResult("chat", False, str(error))
    return ProbeResult("chat", True, f"a chat was answered, {run.prompt_tokens} + {len(run.tokens)} tokens")


def has_chat_template(tokenizer_folder: Path) -> bool:
    """Whether the model has a chat template. A base model has none, and answers completions only."""
    if (tokenizer_folder / "chat_template.jinja").exists():
        return True
    try:
        config = json.loads((tokenizer_folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


async def _performance(engine: Engine, manifest: Manifest, senses: BoardSensors) -> list[ProbeResult]:
    """Probes speed and energy in a run of its own, after the golden prompt has warmed the engine up."""
    try:
        request = UNTOLD if manifest.golden is None else await _unread(engine, manifest.golden)
        run = await _generate(engine, request, senses)
    except EdgewrightError as error:
        return [ProbeResult("latency", False, str(error))]
    return [_latency(run, manifest), *_rate(run, manifest), *_energy(run, manifest)]


def _latency(run: _Run, manifest: Manifest) -> ProbeResult:
    limits = (
        ("TTFT", run.ttft_seconds, manifest.limits.ttft_seconds_max),
        ("TPOT", run.tpot_seconds, manifest.limits.tpot_seconds_max),
    )
    told = ", ".join(f"{name} {seconds:.3f} s{_limit(most)}" for name, seconds, most in limits)
    return ProbeResult("latency", all(most is None or seconds <= most for _, seconds, most in limits), told)


def _kernels(engine: Engine) -> list[ProbeResult]:
    """Reports the kernels that the engine chose for this board, if it says so."""
    kernels = engine.kernels()
    return (
        [ProbeResult("kernels", not engine.slow_kernels(), ", ".join(kernels), required=False)]
        if kernels
        else []
    )


def _limit(most: float | None) -> str:
    return "" if most is None else f" (limit {most:g} s)"


def _rate(run: _Run, manifest: Manifest) -> list[ProbeResult]:
    predicted = manifest.performance.tokens_per_second if manifest.performance is not None else None
    if not run.tpot_seconds:
        return []  # one token has no rate
    rate = 1 / run.tpot_seconds
    if predicted is None:
        return [ProbeResult("rate", True, f"{rate:.1f} tokens/s, no prediction", required=False)]
    detail = f"{rate:.1f} tokens/s, predicted {predicted:.1f} or more"
    return [ProbeResult("rate", rate >= SLOW_RATIO * predicted, detail, required=False)]


def _energy(run: _Run, manifest: Manifest) -> list[ProbeResult]:
    """Judges the energy of decoding. Returns nothing on a board without a sensor, or where the sensor had a gap."""
    if run.energy is None or len(run.tokens) < 2:
        return []
    predicted = manifest.performance.joules_per_token if manifest.performance is not None else None
    joules = run.energy.decode_joules / (len(run.tokens) - 1)  # the first token belongs to reading the prompt
    told = f"{joules:.3f} J/token, {run.energy.prefill_joules:.3f} J before the first"
    if predicted is None:
        return [ProbeResult("energy", True, f"{told}, no prediction", required=False)]
    passed = joules <= COSTLY_RATIO * predicted
    return [ProbeResult("energy", passed, f"{told}, predicted {predicted:.3f} or less", required=False)]


def _request(golden: GoldenPrompt) -> GenerationRequest:
    return GenerationRequest(prompt=golden.prompt, max_tokens=len(golden.tokens), temperature=0.0, exact=True)


async def _unread(engine: Engine, golden: GoldenPrompt) -> GenerationRequest:
    """Returns a prompt as long as the golden one. The engine has kept that one; of this one it reads every token."""

    async def count(text: str) -> int:
        return (await _generate(engine, GenerationRequest(prompt=text, max_tokens=1))).prompt_tokens

    seed = secrets.randbits(32)  # another one each time: an engine may outlive a trial
    words = await words_for(await count(golden.prompt), count, seed)
    prompt = shuffles(words, seed, unlike=[golden.prompt])(0)
    return GenerationRequest(prompt=prompt, max_tokens=len(golden.tokens), ignore_eos=True)


async def _generate(
    engine: Engine, request: GenerationRequest, senses: BoardSensors = BoardSensors()
) -> _Run:
    tokens: list[int] = []
    prompt_tokens = 0
    first = last = began = time.monotonic()
    async with contextlib.aclosing(engine.generate(request)) as events:
        async for event in events:
            if isinstance(event, Token):
                last = event.at_seconds or time.monotonic()
                first = last if not tokens else first
                tokens.append(event.id)
            else:
                prompt_tokens = event.prompt_tokens
    tpot_seconds = (last - first) / (len(tokens) - 1) if len(tokens) > 1 else 0.0
    energy = senses.energy(began, first, last)
    return _Run(prompt_tokens, tuple(tokens), first - began, tpot_seconds, energy)
