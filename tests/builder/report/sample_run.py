"""A run folder as a build leaves it, with made-up figures."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from edgewright.manifest import (
    Chunk,
    EngineSpec,
    File,
    Limits,
    Manifest,
    MemoryPrediction,
    ModelSpec,
    manifest_digest,
)
from edgewright.v1 import telemetry_pb2
from edgewright_builder.bench.results import Bench, BenchSubject
from edgewright_builder.python_api.results.telemetry import snapshot_of
from edgewright_builder.run.resumable_run import STAGES
from edgewright_builder.show.document import document
from tests.support.bench_documents import bench_document

MIB = 1024 * 1024
MODEL_SKILL = {"teacher": 0.50, "student": 0.41, "finetuned": 0.462, "quantized": 0.45, "exported": 0.448}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_sample_run(
    run: Path, *, energy: bool = True, tasks: tuple[str, ...] = ("arc_easy", "piqa")
) -> Path:
    """A finished run with the shape and size of the offline demo's. Its numbers are invented for these tests."""
    dice = random.Random(7)
    write_plan(run)
    seconds = {
        "data": 95,
        "teacher": 21,
        "search": 230,
        "finetune": 48,
        "quantize": 74,
        "export": 19,
        "evaluate": 62,
    }
    for stage in STAGES:
        document = {
            "stage": stage,
            "fingerprint": "ab" * 32,
            "status": "done",
            "seconds": seconds.get(stage, 1.4),
        }
        write_json(run / stage / "stage.json", document | {"summary": {"rows": 600}})
    write_json(run / "data/attrition.json", SAMPLE_ATTRITION)
    write_json(run / "search/trials.json", sample_trials(dice))
    write_json(run / "finetune/curves.json", sample_curves(dice))
    write_json(run / "ladder/ladder.json", sample_ladder())
    for task in tasks:
        for model, skill in MODEL_SKILL.items():
            write_rows(run, task, model, answers(task, model, skill))
    release = write_manifest(run)
    write_device_rows(run, {task: answers(task, "device", 0.447) for task in tasks}, release)
    write_device_files(run, energy, release)
    (run / "recipe.yaml").write_text("student: smollm2-135m-instruct\ntask: arc_easy\nsearch: {trials: 16}\n")
    return run


def write_plan(run: Path) -> None:
    parts = {
        "linear": 47 * MIB,
        "embedding": 27 * MIB,
        "norm": 60_000,
        "kv_cache": 11 * MIB,
        "activation": 9 * MIB,
    }
    plan = {
        "device": {"id": "jetson-orin-nano-4gb", "name": "Jetson Orin Nano 4GB"},
        "budget_bytes": 180 * MIB, "predicted_peak_bytes": 158 * MIB, "error_bytes": 9 * MIB,
        "calibrated_on": "onnxruntime-genai 0.18 on x86-64, 6 points", "breakdown_bytes": parts | {"engine": 64 * MIB},
        "context_tokens": 1024, "concurrency": 1, "layers": 25, "layers_full": 30,
        "dropped_layers": [13, 14, 17, 25, 26],
        "weight_bits": 4, "embedding_bits": 8, "group_size": 64, "kv_bits": 16, "bf16_bytes": 233 * MIB,
        "model": "SmolLM2-135M-Instruct",
    }  # fmt: skip
    write_json(run / "plan.json", plan)


SAMPLE_ATTRITION = {
    "generated": 940, "question_unparseable": 18, "question_too_short": 61, "contaminated": 3, "duplicate": 71,
    "answer_unparseable": 0, "answer_too_short": 39, "unrated": 7, "below_minimum_score": 132, "surplus": 9,
    "kept": 600,
}  # fmt: skip


def sample_trials(dice: random.Random) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = []
    for number in range(16):
        params = {
            "optimizer": dice.choice(["adam", "muon"]), "learning_rate": 10 ** dice.uniform(-4.5, -2.5),
            "rank": dice.choice([8, 16, 32, 64]), "scale": dice.uniform(0.5, 4), "temperature": dice.uniform(0.5, 2),
            "alpha": dice.uniform(0.3, 1), "weight_decay": dice.uniform(0, 0.1),
        }  # fmt: skip
        state = {4: "diverged", 9: "interrupted"}.get(number, "complete")
        value = 0.34 + 0.5 * math.exp(-number / 6) * dice.random() if state == "complete" else None
        trials.append(
            {"number": number, "state": state, "value": value, "params": params,
             "seconds": dice.uniform(11, 16) if value else 0.0, "objective": "quantized_kl"}
        )  # fmt: skip
    return trials


def sample_curves(dice: random.Random) -> dict[str, Any]:
    train = [
        {"step": i, "tokens": i * 700, "loss": 0.25 + 0.6 * math.exp(-i / 15) + dice.gauss(0, 0.02)}
        for i in range(1, 68)
    ]
    return {
        "train": train, "validation_kl_before": 0.731, "validation_kl_before_standard_error": 0.019,
        "validation_kl_after": 0.330, "validation_kl_after_standard_error": 0.011,
        "validation_kl_rounded": 0.612, "validation_kl_rounded_standard_error": 0.017,
    }  # fmt: skip


def sample_ladder() -> list[dict[str, Any]]:
    def kl(mean: float) -> dict[str, float]:
        return {"mean": mean, "standard_error": 0.011, "tokens": 900}

    return [
        {"model": "student", "to_teacher": kl(0.731), "to_finetuned": None},
        {"model": "finetuned", "to_teacher": kl(0.330), "to_finetuned": None},
        {"model": "quantized", "to_teacher": kl(0.521), "to_finetuned": kl(0.187)},
        {"model": "recovered", "to_teacher": kl(0.412), "to_finetuned": kl(0.094)},
        {"model": "exported", "to_teacher": kl(0.417), "to_finetuned": kl(0.098)},
    ]


def write_rows(run: Path, task: str, model: str, right: list[bool]) -> None:
    """As the evaluate stage writes it."""
    outcomes = [
        {"id": f"{i}", "log_likelihoods": [-1.0, -2.0], "acc": hit, "acc_norm": not hit}
        for i, hit in enumerate(right)
    ]
    document = {"fingerprint": "x", "source": "a file", "task": task, "metric": "acc", "outcomes": outcomes}
    write_json(run / "evaluate" / model / f"{task}.json", document)


def write_device_rows(run: Path, right: dict[str, list[bool]], release: str = "") -> None:
    """As `edgewright eval --save` writes it."""
    results = [
        {"task": task, "model": "served", "metric": "acc", "outcomes": hits} for task, hits in right.items()
    ]
    write_json(run / "device/eval.json", {"results": results, "release": release})


def answers(task: str, model: str, skill: float) -> list[bool]:
    """Right or wrong for 400 rows whose difficulty is the same for all models."""
    difficulty, luck = random.Random(task), random.Random(task + model)
    return [difficulty.random() < skill + luck.gauss(0, 0.03) for _ in range(400)]


def distribution(median: float) -> telemetry_pb2.Distribution:
    return telemetry_pb2.Distribution(
        count=16, mean=median * 1.04, p50=median, p90=median * 1.2, p99=median * 1.6, max=median * 1.7
    )


def bench_result(slower: float = 1.0, **fields: Any) -> telemetry_pb2.BenchmarkResult:
    return telemetry_pb2.BenchmarkResult(
        prompts=16, input_tokens=128, output_tokens=64, concurrency=1, duration_seconds=9.4 * slower,
        generated_tokens_per_second=108.6 / slower, total_tokens_per_second=326.1 / slower,
        time_to_first_token_seconds=distribution(0.262 * slower),
        time_per_output_token_seconds=distribution(0.0089 * slower),
        inter_token_latency_seconds=distribution(0.0087 * slower), end_to_end_seconds=distribution(0.83 * slower),
        **fields,
    )  # fmt: skip


def write_device_files(run: Path, energy: bool, release: str) -> None:
    bench = bench_result(engine_peak_bytes=162 * MIB, weights_bytes=76 * MIB, requests_together=1)
    if energy:
        bench.energy.CopyFrom(
            telemetry_pb2.BenchmarkEnergy(
                rail="VDD_IN",
                whole_module=True,
                gross_joules_per_output_token=0.0712,
                net_joules_per_output_token=0.0418,
                mean_watts=7.73,
                baseline_watts=3.19,
                samples=940,
                gaps=0,
                phases=telemetry_pb2.PhaseEnergy(
                    prompts=16,
                    prefill_joules_per_input_token=0.0071,
                    decode_joules_per_output_token=0.0561,
                    net_decode_joules_per_output_token=0.0287,
                ),
            )
        )
    snapshot = telemetry_pb2.Snapshot(
        profile_id="jetson-orin-nano-4gb", active_release=bytes.fromhex(release),
        memory=telemetry_pb2.Memory(
            total_bytes=4096 * MIB, available_bytes=2100 * MIB, budget_bytes=180 * MIB, engine_peak_bytes=164 * MIB,
            agent_bytes=41 * MIB, used_peak_bytes=1900 * MIB, engine_measure="pss",
        ),
        sensors=[telemetry_pb2.Sensor(name="nvml", available=False, detail="libnvidia-ml.so.1 is not there")],
    )  # fmt: skip
    subject = BenchSubject(
        "board:7443", "jetson-orin-nano-4gb", "smollm2-arc-easy 1.0.0", release, "4-bit weights",
        "onnxruntime-genai 0.18.0", 180 * MIB, 232 * MIB, "15W", {"gpu": 624_750_000},
    )  # fmt: skip
    measured = Bench(subject, (bench,), bench_result(1.03), distribution(0.004))
    write_json(run / "device/bench.json", bench_document(measured))
    before = bench_result(3.5, engine_peak_bytes=610 * MIB, weights_bytes=464 * MIB)
    unquantized = Bench(
        BenchSubject(
            "this machine", "this-host", release=release, precision="float32", weights_16bit_bytes=232 * MIB
        ),
        (before,),
    )
    write_json(run / "bench/finetuned.json", bench_document(unquantized))
    write_json(run / "device/telemetry.json", document(snapshot_of(snapshot)))
    probes = [
        {"name": "ready", "required": True, "passed": True, "detail": "ready after 1.9 s"},
        {"name": "golden_prompt", "required": True, "passed": True, "detail": "16 of 16 tokens as expected"},
    ]
    outcome = {"outcome": "committed", "active_release": release, "message": "", "probes": probes}
    transfer = {"artifact_bytes": 78 * MIB, "missing_bytes": 78 * MIB, "blobs": 2, "missing_blobs": 2}
    push = {
        "release": release,
        "plan": transfer,
        "sent_bytes": 78 * MIB,
        "resumptions": 1,
        "transfer_seconds": 3.2,
    }
    write_json(run / "device/push.json", push | {"verdict": outcome})


def write_manifest(run: Path) -> str:
    """Returns the release: the manifest's digest."""
    size = 3 * MIB
    files = tuple(
        File(
            path=path,
            sha256="c" * 64,
            size_bytes=size * count,
            chunks=(Chunk(sha256="d" * 64, size_bytes=size),) * count,
        )
        for path, count in (("engine/model.onnx.data", 25), ("tokenizer/tokenizer.json", 1))
    )
    manifest = Manifest(
        name="smollm2-arc-easy", version="1.0.0", device_profiles=("jetson-orin-nano-4gb",), files=files,
        engine=EngineSpec(kind="onnxruntime-genai", version="0.18.0"),
        model=ModelSpec(
            architecture="LlamaForCausalLM", parameters=116_000_000, layers=25, hidden_size=576, vocab_size=49152,
            tied_embeddings=True, weight_bits=4, embedding_bits=8, group_size=64,
        ),
        limits=Limits(context_tokens=1024),
        memory=MemoryPrediction(
            budget_bytes=180 * MIB, predicted_peak_bytes=158 * MIB, error_bytes=9 * MIB, calibrated_on="x86-64"
        ),
        lineage={
            "base": {"model": "SmolLM2-135M-Instruct", "sha256": "1" * 64},
            "teachers": [{"role": role, "model": "SmolLM2-135M-Instruct"} for role in ("T1", "T2")],
            "data": {"sha256": "2" * 64, "rows": 600}, "recipe_sha256": "3" * 64,
            "hyperparameters": {"optimizer": "muon", "learning_rate": 0.00213, "rank": 32, "alpha": 0.91},
        },
    )  # fmt: skip
    (run / "artifact").mkdir(parents=True, exist_ok=True)
    (run / "artifact/manifest.json").write_bytes(manifest.to_bytes())
    return manifest_digest(manifest.to_bytes())
