"""A run's model on this machine, measured as a board measures it: quantized, or as it was before quantization.

"Before" is the fine-tuned checkpoint, for vLLM at 16 bits and for ONNX Runtime at 32: its CPU provider computes no
16-bit model. The same engine serves both, so that the difference is quantization's.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgewright.durable import write_json
from edgewright.errors import InputError
from edgewright.manifest import Manifest, manifest_digest, parse_manifest
from edgewright.v1.telemetry_pb2 import BenchmarkResult
from edgewright_agent.benchmark import benchmark as agent_benchmark
from edgewright_agent.benchmark.load import BenchmarkPlan, BenchmarkProgress
from edgewright_agent.benchmark.proto import result_to_proto
from edgewright_agent.deployment.fair_request_slots import RequestSlots
from edgewright_agent.engines import Engine, EngineLimits, Finish, GenerationRequest, Token, start_engine
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_builder.artifact.artifact import MANIFEST_NAME
from edgewright_builder.bench.board import OnProgress
from edgewright_builder.bench.results import Bench, BenchSubject
from edgewright_builder.local_engine.engine import READY_TIMEOUT_SECONDS, engine_version
from edgewright_profiles import load_profile

BenchStage = Literal["finetuned", "exported"]
THIS_HOST = "this-host"


@dataclass(frozen=True)
class Candidate:
    """A model's files as an engine starts on them, and what it is."""

    tree: Path
    manifest: Manifest
    precision: str
    release: str  # SHA-256 of the manifest, in hex


def candidate(run: Path, stage: BenchStage) -> Candidate:
    """Returns the run's model at that stage; "finetuned" is exported first, unless it was. Raises InputError,
    OutsideError.
    """
    path = run / "artifact" / MANIFEST_NAME
    if not path.is_file():
        raise InputError(f"{run} holds no artifact yet; `edgewright build` makes it.")
    manifest, release = parse_manifest(path.read_bytes()), manifest_digest(path.read_bytes())
    if manifest.adapter is not None:
        raise InputError(f"{run} made an adapter; measure the run of its base.")
    if stage == "exported":
        return Candidate(run / "artifact", manifest, f"{manifest.model.weight_bits}-bit weights", release)
    tree, precision = _unquantized(run, manifest.engine.kind)
    return Candidate(tree, manifest, precision, release)


def _unquantized(run: Path, engine: str) -> tuple[Path, str]:
    """Returns the fine-tuned checkpoint as the engine takes it, exported once, and its precision."""
    from edgewright_builder.export.for_engine import exporter_for
    from edgewright_builder.models.folder import model_digest

    checkpoint, tree = run / "finetune" / "model", run / "bench" / "finetuned"
    if not any(checkpoint.glob("*.safetensors")):
        raise InputError(
            f"{checkpoint} holds no weights, so there is nothing to measure before quantization."
        )
    exporter = exporter_for(engine)
    record, made_from = tree / "export.json", {"checkpoint": model_digest(checkpoint), "engine": engine}
    if not record.is_file() or json.loads(record.read_bytes()) != made_from:
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        exporter.unquantized(checkpoint, tree)
        write_json(record, made_from)
    return tree, exporter.precision(tree)


async def run_locally(model: Candidate, plan: BenchmarkPlan, repeats: int, on_progress: OnProgress) -> Bench:
    """Runs every repeat in one engine process. Raises InputError for a plan beyond the model's context."""
    limits, kind = model.manifest.limits, model.manifest.engine.kind
    plan.check(limits.context_tokens)
    telemetry = Telemetry(load_profile(THIS_HOST))
    with tempfile.TemporaryDirectory(prefix="edgewright-") as runtime:
        engine = await start_engine(
            kind, model.tree, model.manifest, EngineLimits(limits.context_tokens, limits.concurrency),
            runtime_dir=Path(runtime), ready_timeout_seconds=READY_TIMEOUT_SECONDS,
        )  # fmt: skip
        telemetry.start()
        telemetry.set_engine_memory_source(engine.memory)
        try:
            runs = [
                await _one(model, engine, telemetry, replace(plan, seed=plan.seed + number), on_progress)
                for number in range(repeats)
            ]
        finally:
            telemetry.stop()
            await engine.stop()
    return Bench(_subject(model, telemetry), tuple(runs))


async def _one(
    model: Candidate, engine: Engine, telemetry: Telemetry, plan: BenchmarkPlan, on_progress: OnProgress
) -> BenchmarkResult:
    gate = RequestSlots(engine.slots(model.manifest.limits.concurrency))

    async def generate(request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        async with gate.admit(patient=True), aclosing(engine.generate(request)) as events:
            async for event in events:
                yield event

    folder = model.tree / model.manifest.engine.folder
    events = agent_benchmark.run_benchmark(
        plan, generate, telemetry,
        context_tokens=model.manifest.limits.context_tokens,
        weights_bytes=sum(file.stat().st_size for file in folder.iterdir()),
        requests_together=await engine.requests_together(model.manifest.limits.concurrency, plan.request_tokens),
    )  # fmt: skip
    async with aclosing(events):
        async for event in events:
            if not isinstance(event, BenchmarkProgress):
                return result_to_proto(event)
            on_progress(event.prompts_done, event.prompts_total, event.generated_tokens_per_second)
    raise AssertionError("a benchmark ends with a result or an error")


def _subject(model: Candidate, telemetry: Telemetry) -> BenchSubject:
    manifest, snapshot = model.manifest, telemetry.snapshot()
    at_16_bits = 2 * manifest.model.parameters
    return BenchSubject(
        where="this machine",
        device=THIS_HOST,
        model=f"{manifest.name} {manifest.version}",
        release=model.release,
        precision=model.precision,
        engine=f"{manifest.engine.kind} {engine_version(manifest.engine.kind)}".strip(),
        weights_16bit_bytes=at_16_bits,
        power_mode=snapshot.power_mode,
        clocks_hertz={clock.unit: clock.hertz for clock in snapshot.clocks},
    )


def result_file(run: Path, stage: BenchStage) -> Path:
    """Returns where the result of that stage is left."""
    return run / "bench" / f"{stage}.json"
