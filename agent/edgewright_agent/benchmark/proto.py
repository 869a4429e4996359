"""Benchmark results as the messages of `telemetry.proto`."""

from __future__ import annotations

from edgewright.v1 import telemetry_pb2
from edgewright_agent.benchmark.benchmark import BenchmarkEnergy, BenchmarkResult
from edgewright_agent.benchmark.load import BenchmarkPlan, BenchmarkProgress, LoadMeasurement
from edgewright_agent.telemetry.proto import distribution_to_proto


def benchmark_to_proto(event: BenchmarkProgress | BenchmarkResult) -> telemetry_pb2.RunBenchmarkResponse:
    """Returns one message of the stream that RunBenchmark answers with."""
    if isinstance(event, BenchmarkProgress):
        return telemetry_pb2.RunBenchmarkResponse(progress=telemetry_pb2.BenchmarkProgress(**vars(event)))
    return telemetry_pb2.RunBenchmarkResponse(result=result_to_proto(event))


def result_to_proto(result: BenchmarkResult) -> telemetry_pb2.BenchmarkResult:
    """Returns a benchmark's result; what was not measured is absent."""
    message = load_to_proto(result.plan, result.load)
    message.weights_bytes = result.weights_bytes
    if result.engine_peak_bytes is not None:
        message.engine_peak_bytes = result.engine_peak_bytes
    if result.requests_together is not None:
        message.engine_batches = result.requests_together > 1
        message.requests_together = result.requests_together
    message.other_requests = result.other_requests
    if result.throttle_events is not None:
        message.throttle_events = result.throttle_events
    if result.energy is not None:
        message.energy.CopyFrom(benchmark_energy_to_proto(result.energy))
    return message


def load_to_proto(plan: BenchmarkPlan, load: LoadMeasurement) -> telemetry_pb2.BenchmarkResult:
    """Returns the figures that every caller can measure, on the board or over the link."""
    return telemetry_pb2.BenchmarkResult(
        prompts=plan.prompts,
        prompts_failed=load.prompts_failed,
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        concurrency=plan.callers,
        duration_seconds=load.duration_seconds,
        generated_tokens_per_second=load.generated_tokens_per_second,
        total_tokens_per_second=load.total_tokens_per_second,
        time_to_first_token_seconds=distribution_to_proto(load.time_to_first_token_seconds),
        time_per_output_token_seconds=distribution_to_proto(load.time_per_output_token_seconds),
        inter_token_latency_seconds=distribution_to_proto(load.inter_token_latency_seconds),
        end_to_end_seconds=distribution_to_proto(load.end_to_end_seconds),
        seed=plan.seed,
    )


def benchmark_energy_to_proto(energy: BenchmarkEnergy) -> telemetry_pb2.BenchmarkEnergy:
    """Translates field for field."""
    phases = telemetry_pb2.PhaseEnergy(**vars(energy.phases)) if energy.phases else None
    return telemetry_pb2.BenchmarkEnergy(**{**vars(energy), "phases": phases})
