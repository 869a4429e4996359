"""What the report says of each model of a build, and how it compares two of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

from edgewright_builder.report import write_report
from edgewright_builder.report.inputs import read_run
from edgewright_builder.report.summary import differences, key_numbers
from tests.builder.report.pages import page_of
from tests.builder.report.sample_run import (
    write_device_rows,
    write_json,
)


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


def test_the_ladder_says_of_each_model_how_far_it_is_from_the_teacher_and_what_changed(run: Path) -> None:
    page = page_of(run)
    for figure in ("0.521 ± 0.011", "0.187 ± 0.011", "0.412 ± 0.011", "0.094 ± 0.011", "0.417 as it ships"):
        assert figure in page.text
    rows = [line for line in page.text.split("\n") if "trained after GPTQ, 4 bits" in line]
    assert len(rows) == 1


def test_rounding_to_nearest_is_never_called_4_bits(run: Path) -> None:
    page = page_of(run)
    assert "rounded to nearest" in page.text
    assert "at 4 bits" not in page.text.lower()


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
