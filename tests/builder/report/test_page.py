"""The report's page shows what a run holds, says what it lacks, and trusts no text it is given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgewright.manifest import (
    manifest_digest,
)
from edgewright.v1 import telemetry_pb2
from edgewright_builder.bench.results import Bench, BenchSubject
from edgewright_builder.report import write_report
from edgewright_builder.report.inputs import read_run
from edgewright_builder.report.summary import key_numbers, verdict
from edgewright_builder.run.resumable_run import STAGES
from tests.builder.report.pages import Page, page_of
from tests.builder.report.sample_run import (
    MIB,
    bench_result,
    write_device_rows,
    write_json,
    write_rows,
    write_sample_run,
)
from tests.support.bench_documents import bench_document


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
    write_json(run / "device/bench.json", bench_document(Bench(BenchSubject("board:7443"), (bench,))))
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


@pytest.mark.parametrize(
    "path",
    [
        "device/push.json",
        "device/bench.json",
        "device/eval.json",
        "device/telemetry.json",
        "bench/finetuned.json",
    ],
)
def test_what_was_measured_of_an_earlier_release_is_left_out_and_said(run: Path, path: str) -> None:
    before, release = read_run(run), manifest_digest((run / "artifact/manifest.json").read_bytes())
    (run / path).write_text((run / path).read_text().replace(release, "ab" * 32))
    after = read_run(run)
    (problem,) = after.problems
    assert problem.startswith(
        f"{path} is left out: it is of the release abababababab, and this run's artifact is "
    )
    assert problem in page_of(run).text
    fields = ("push", "measured", "scores", "telemetry", "before")
    assert [getattr(after, name) != getattr(before, name) for name in fields].count(True) == 1


def test_after_another_build_no_figure_of_the_old_board_is_shown_as_the_new_ones(run: Path) -> None:
    manifest = run / "artifact/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"1.0.0"', b'"1.1.0"'))
    inputs = read_run(run)
    assert len(inputs.problems) == 5
    assert verdict(inputs).text.startswith("Predicted to fit")
    assert {number.name: number.value for number in key_numbers(inputs)}["Generation"] == "not measured"


def test_while_another_build_is_under_way_the_artifact_of_the_one_before_is_left_out(run: Path) -> None:
    for stage in ("finetune", "quantize"):
        (run / stage / "started").write_text("ab" * 32)
    (run / "quantize/stage.json").unlink()
    inputs = read_run(run)
    (problem,) = inputs.problems
    assert "this one is in its stage quantize" in problem
    assert (inputs.manifest, inputs.push, inputs.measured, inputs.before, inputs.telemetry) == (None,) * 5
    assert all(score.model != "device" for score in inputs.scores)
    assert verdict(inputs).text.startswith("Predicted to fit")


def test_the_artifact_is_named_by_its_manifest_digest(run: Path) -> None:
    digest = manifest_digest((run / "artifact/manifest.json").read_bytes())
    assert digest in page_of(run).text


@pytest.mark.parametrize(
    ("summary", "divergence", "loss"),
    [
        ({"alignment": "shared"}, "KL", "α T² KL + (1 − α) CE"),
        ({"alignment": "projected"}, "projected KL", "α T² projected KL + (1 − α) CE"),
        ({"alignment": "uld"}, "projected KL", "α ULD + (1 − α) CE"),
        ({"alignment": "shared", "top_k": 64}, "top-64 KL", "α T² top-64 KL + (1 − α) CE"),
        (
            {"alignment": "projected", "top_k": 8},
            "top-8 projected KL",
            "α T² top-8 projected KL + (1 − α) CE",
        ),
        ({"compared_share": 0.9}, "projected KL", "α T² projected KL + (1 − α) CE"),  # of an earlier version
    ],
)
def test_the_distance_to_the_teacher_is_called_what_was_measured(
    run: Path, summary: dict[str, object], divergence: str, loss: str
) -> None:
    stage = json.loads((run / "teacher/stage.json").read_text())
    write_json(run / "teacher/stage.json", stage | {"summary": summary})
    text, title = page_of(run).text, divergence[0].upper() + divergence[1:]
    for words in (
        f"Validation {divergence} to the teacher", f"{title} to teacher", loss, f"{title} to the teacher",
        f"{divergence}(teacher ‖ student) at T = 1", f"validation {divergence} at T = 1 when quantized",
        "KL to fine-tuned",
    ):  # fmt: skip
        assert words in text
    assert ("so at most the whole KL" in text) == ("top" in divergence)
    assert ("the alphabet that they share" in text) == ("projected" in divergence)


def test_trials_that_diverged_stand_out_from_those_that_were_interrupted(run: Path) -> None:
    html = write_report(run).read_text()
    assert 'class="stroke limit"><title >trial 4: diverged' in html
    assert 'class="stroke muted"><title >trial 9: interrupted' in html
