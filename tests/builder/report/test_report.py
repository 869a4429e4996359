"""The report shows what a run holds, says what it lacks, and trusts no text it is given."""

from __future__ import annotations

import io
import json
import math
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgewright.errors import InputError
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
from edgewright_builder.bench.results import Bench, BenchSubject, bench_to_json
from edgewright_builder.cli.host.report import report
from edgewright_builder.report import summary_table, write_report
from edgewright_builder.report.inputs import read_run
from edgewright_builder.report.summary import differences, key_numbers, verdict
from edgewright_builder.report.terminal import ladder_table
from edgewright_builder.run.run import STAGES
from edgewright_builder.sdk.results.telemetry import snapshot_of
from edgewright_builder.show.document import document

MIB = 1024 * 1024
VOID = {"meta", "link", "br", "hr", "img", "input"}
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
    write_device_rows(run, {task: answers(task, "device", 0.447) for task in tasks})
    write_device_files(run, energy)
    write_manifest(run)
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
        state = {4: "infeasible", 9: "failed"}.get(number, "complete")
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


def write_device_rows(run: Path, right: dict[str, list[bool]]) -> None:
    """As `edgewright eval --save` writes it."""
    results = [
        {"task": task, "model": "served", "metric": "acc", "outcomes": hits} for task, hits in right.items()
    ]
    write_json(run / "device/eval.json", {"results": results})


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


def write_device_files(run: Path, energy: bool) -> None:
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
        profile_id="jetson-orin-nano-4gb", active_release=bytes(32),
        memory=telemetry_pb2.Memory(
            total_bytes=4096 * MIB, available_bytes=2100 * MIB, budget_bytes=180 * MIB, engine_peak_bytes=164 * MIB,
            agent_bytes=41 * MIB, used_peak_bytes=1900 * MIB, engine_measure="pss",
        ),
        sensors=[telemetry_pb2.Sensor(name="nvml", available=False, detail="libnvidia-ml.so.1 is not there")],
    )  # fmt: skip
    subject = BenchSubject(
        "board:7443", "jetson-orin-nano-4gb", "smollm2-arc-easy 1.0.0", "0" * 64, "4-bit weights",
        "onnxruntime-genai 0.18.0", 180 * MIB, 232 * MIB, "15W", {"gpu": 624_750_000},
    )  # fmt: skip
    measured = Bench(subject, (bench,), bench_result(1.03), distribution(0.004))
    write_json(run / "device/bench.json", bench_to_json(measured))
    before = bench_result(3.5, engine_peak_bytes=610 * MIB, weights_bytes=464 * MIB)
    unquantized = Bench(
        BenchSubject("this machine", "this-host", precision="float32", weights_16bit_bytes=232 * MIB),
        (before,),
    )
    write_json(run / "bench/finetuned.json", bench_to_json(unquantized))
    write_json(run / "device/telemetry.json", document(snapshot_of(snapshot)))
    probes = [
        {"name": "ready", "required": True, "passed": True, "detail": "ready after 1.9 s"},
        {"name": "golden_prompt", "required": True, "passed": True, "detail": "16 of 16 tokens as expected"},
    ]
    outcome = {"outcome": "committed", "active_release": "00" * 32, "message": "", "probes": probes}
    transfer = {"artifact_bytes": 78 * MIB, "missing_bytes": 78 * MIB, "blobs": 2, "missing_blobs": 2}
    push = {
        "release": "00" * 32,
        "plan": transfer,
        "sent_bytes": 78 * MIB,
        "resumptions": 1,
        "transfer_seconds": 3.2,
    }
    write_json(run / "device/push.json", push | {"verdict": outcome})


def write_manifest(run: Path) -> None:
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


class Page(HTMLParser):
    """Checks that tags nest, and collects text and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_sample_run(tmp_path / "run")


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text())


def test_a_finished_run_gives_a_well_formed_page_with_every_picture(run: Path) -> None:
    page = page_of(run)
    assert ("class", "lead missing") not in page.attributes
    assert {"svg", "table", "section"} <= page.tags
    assert sum(name == "viewbox" for name, _ in page.attributes) == 16


def test_the_page_is_self_contained_and_runs_no_script(run: Path) -> None:
    html = write_report(run).read_text()
    page = Page(html)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert "http" not in html
    assert not re.search(r"url\(|@import", html)
    assert all((value or "").startswith("#") for name, value in page.attributes if name in ("href", "src"))


def test_the_same_run_gives_the_same_bytes_and_leaves_no_partial_file(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not list(run.glob(".tmp*"))


def test_the_headline_compares_size_memory_accuracy_speed_and_energy(run: Path) -> None:
    numbers = {number.name: number for number in key_numbers(read_run(run))}
    assert numbers["Artifact"].value == "78.0 MiB"
    assert numbers["Artifact"].detail.startswith("3.0× smaller")
    assert numbers["Peak memory"].value == "164.0 MiB"
    assert "budget 180.0 MiB" in numbers["Peak memory"].detail
    assert numbers["Generation"].value == "108.6 tokens/s"
    assert numbers["Energy"].value == "0.0712 J/token"
    assert "0.731" in numbers["KL to the teacher"].detail
    assert numbers["Accuracy, mean of 2 tasks"].detail.startswith("on the device")


def test_a_student_that_was_its_own_teacher_has_no_percentage_of_nothing(run: Path) -> None:
    path = run / "finetune" / "curves.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "validation_kl_before": 5e-12}))
    (run / "ladder" / "ladder.json").unlink()
    numbers = {number.name: number for number in key_numbers(read_run(run))}
    assert "%" not in numbers["KL to the teacher"].detail
    assert "the student was the teacher" in numbers["KL to the teacher"].detail


def test_a_student_that_was_its_own_teacher_is_held_against_its_16_bit_self(run: Path) -> None:
    path = run / "finetune" / "curves.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "validation_kl_before": 0.0}))
    rung = {"mean": 11.9, "standard_error": 0.3, "tokens": 100}
    nearer = {"mean": 0.022, "standard_error": 0.004, "tokens": 100}
    (run / "ladder").mkdir(exist_ok=True)
    write_json(
        run / "ladder" / "ladder.json", [{"model": "exported", "to_teacher": rung, "to_finetuned": nearer}]
    )
    numbers = {number.name: number for number in key_numbers(read_run(run))}
    assert numbers["KL to the 16-bit model"].value == "0.022 ± 0.004"
    assert "KL to the teacher" not in numbers
    page = write_report(run).read_text(encoding="utf-8")
    assert "KL to teacher" not in page
    assert "Validation KL to the teacher" not in page
    assert "KL to fine-tuned" in page


def test_the_verdict_follows_the_measurement_and_before_it_the_prediction(run: Path) -> None:
    assert verdict(read_run(run)).tone == "good"
    plan = json.loads((run / "plan.json").read_text())
    write_json(run / "plan.json", plan | {"budget_bytes": 150 * MIB})
    assert "exceeds 150.0 MiB by 14.0 MiB" in verdict(read_run(run)).text
    (run / "device/bench.json").unlink()
    (run / "device/telemetry.json").unlink()
    assert verdict(read_run(run)).text.startswith("Predicted not to fit")
    write_json(run / "plan.json", plan | {"budget_bytes": 160 * MIB})
    assert verdict(read_run(run)).text.startswith("Likely to fit")
    write_json(run / "plan.json", plan)
    assert verdict(read_run(run)).text.startswith("Predicted to fit")


def test_without_an_energy_sensor_there_is_no_figure_for_energy(tmp_path: Path) -> None:
    page = page_of(write_sample_run(tmp_path / "run", energy=False))
    assert "no energy sensor, so no figure" in page.text
    assert "J/token" not in page.text


def test_across_a_gap_of_the_sensor_there_is_no_figure_for_energy(run: Path) -> None:
    bench = bench_result(energy=telemetry_pb2.BenchmarkEnergy(rail="VDD_IN", samples=80, gaps=1))
    write_json(run / "device/bench.json", bench_to_json(Bench(BenchSubject("board:7443"), (bench,))))
    number = {number.name: number for number in key_numbers(read_run(run))}["Energy"]
    assert (number.value, number.tone) == ("not measured", "absent")
    assert number.detail.startswith("VDD_IN was silent for over a second once")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("plan.json", "No plan yet."),
        ("data/attrition.json", "Not measured: data attrition."),
        ("search/trials.json", "Not measured: search history."),
        ("finetune/curves.json", "Not measured: training curves."),
        ("ladder/ladder.json", "Not measured: the ladder."),
        ("device/bench.json", "Not measured: latency and throughput."),
        ("device/push.json", "Not deployed yet."),
        ("artifact/manifest.json", "No artifact yet."),
        ("quantize/stage.json", "Still to do: quantize."),
    ],
)
def test_a_missing_file_is_said_to_be_missing_and_the_rest_is_shown(run: Path, path: str, says: str) -> None:
    (run / path).unlink()
    page = page_of(run)
    assert says in page.text
    assert page.attributes.count(("class", "lead missing")) == {
        "plan.json": 2,
        "quantize/stage.json": 0,
    }.get(path, 1)


def test_the_ladder_says_of_each_model_how_far_it_is_from_the_teacher_and_what_changed(run: Path) -> None:
    page = page_of(run)
    for figure in ("0.521 ± 0.011", "0.187 ± 0.011", "0.412 ± 0.011", "0.094 ± 0.011", "0.417 as it ships"):
        assert figure in page.text
    rows = [line for line in page.text.split("\n") if "scales trained, 4 bits" in line]
    assert len(rows) == 1


def test_rounding_to_nearest_is_never_called_4_bits(run: Path) -> None:
    page = page_of(run)
    assert "rounded to nearest" in page.text
    assert "at 4 bits" not in page.text.lower()


def test_an_empty_run_gives_a_report_that_names_all_that_is_missing(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "svg" not in page.tags
    assert page.attributes.count(("class", "lead missing")) == 11
    assert f"0 of {len(STAGES)} stages are done" in page.text


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"steps": 3}', '{"result": {"prompts": "many"}}', "null", "\x00"]
)
def test_a_file_that_cannot_be_read_is_named_and_stops_nothing(run: Path, content: str) -> None:
    files = [path for path in run.rglob("*.json") if "stage.json" not in path.name]
    for path in files:
        path.write_text(content)
    inputs = read_run(run)
    named = {problem.split(" ")[0] for problem in inputs.problems}
    assert "plan.json" in named
    assert "artifact/manifest.json" in named
    text = page_of(run).text
    assert all(problem in text for problem in inputs.problems)


def test_text_from_outside_is_escaped_everywhere(run: Path) -> None:
    evil = "<script>alert('x')</script>\"&"
    plan = json.loads((run / "plan.json").read_text())
    write_json(
        run / "plan.json", plan | {"model": evil, "device": {"id": evil, "name": evil}, "calibrated_on": evil}
    )
    write_json(run / "data/attrition.json", {"generated": 2, evil: 1, "kept": 1})
    trial = {"number": 0, "state": "complete", "value": 1.0, "params": {"optimizer": evil, evil: evil}}
    write_json(run / "search/trials.json", [trial | {"objective": evil}])
    write_device_rows(run, {evil: [True, False]})
    write_rows(run, "arc_easy", "<b>bold", [True])
    probe = {"name": evil, "detail": evil}
    write_json(run / "device/push.json", {"verdict": {"outcome": evil, "message": evil, "probes": [probe]}})
    (run / "recipe.yaml").write_text(evil)
    html = write_report(run).read_text()
    assert not Page(html).tags & {"script", "b"}
    assert "<script" not in html
    assert evil in Page(html).text


def test_differences_are_paired_where_both_models_answered_the_same_rows(run: Path) -> None:
    found = differences(read_run(run).scores)
    assert [(one.before, one.after) for one in found if one.task == "piqa"] == [
        ("student", "finetuned"), ("finetuned", "quantized"), ("quantized", "exported"), ("exported", "device"),
    ]  # fmt: skip
    assert all(one.paired for one in found)
    alone = {
        score.model: score.share.standard_error for score in read_run(run).scores if score.task == "arc_easy"
    }
    assert 0 < found[0].standard_error < math.hypot(alone["student"], alone["finetuned"])


def test_models_that_answered_other_rows_are_compared_unpaired_and_said_so(run: Path) -> None:
    write_device_rows(run, {"piqa": [True, False] * 50})
    (found,) = [
        one for one in differences(read_run(run).scores) if one.task == "piqa" and one.after == "device"
    ]
    assert not found.paired
    assert found.rows == 100
    assert "unpaired" in page_of(run).text


def test_the_metric_of_the_task_decides_what_is_right(tmp_path: Path) -> None:
    row = {"id": "1", "acc": False, "acc_norm": True}
    write_json(tmp_path / "evaluate/student/t.json", {"task": "t", "metric": "acc_norm", "outcomes": [row]})
    (only,) = read_run(tmp_path).scores
    assert only.share.value == 1


def test_the_artifact_is_named_by_its_manifest_digest(run: Path) -> None:
    digest = manifest_digest((run / "artifact/manifest.json").read_bytes())
    assert digest in page_of(run).text


def test_what_is_no_run_folder_is_refused_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        write_report(tmp_path / "nowhere")


def test_the_terminal_shows_the_same_numbers_as_the_page(run: Path) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary_table(run))
    shown = console.export_text()
    for number in key_numbers(read_run(run)):
        assert number.value in shown
    assert "It fits" in shown


def test_the_terminal_shows_the_ladder_with_every_model(run: Path) -> None:
    console = Console(width=120, file=io.StringIO())
    table = ladder_table(run)
    assert table is not None
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    for name in ("teacher", "student", "fine-tuned", "GPTQ", "recovered", "exported", "on the device"):
        assert sum(line.strip().startswith(name) for line in lines) == 1, name
    (recovered,) = (line for line in lines if line.strip().startswith("recovered"))
    assert "0.094 ± 0.011" in recovered


def test_a_run_without_measurements_has_no_ladder(tmp_path: Path) -> None:
    assert ladder_table(tmp_path) is None


def test_the_terminal_prints_brackets_as_they_are(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    write_json(run / "plan.json", plan | {"device": {"id": "[red]x[/]"}, "budget_bytes": "[bold]"})
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary_table(run))
    assert "plan.json can't be read" in console.export_text()


def test_the_report_needs_no_heavy_library() -> None:
    code = "import sys, edgewright_builder.report; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_whose_search_has_not_ended_has_a_report_and_a_folder_that_is_no_run_has_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\n", encoding="utf-8")
    report(tmp_path)
    assert (tmp_path / "report.html").is_file()
    with pytest.raises(InputError, match="is not a run: it has no recipe"):
        report(tmp_path / "elsewhere")
