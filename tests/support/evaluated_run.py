"""A run's evaluation on a quiz, as the stage leaves it: the exported model got every row right."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from edgewright_builder.stages.evaluate import quiz_of
from edgewright_builder.tasks.definitions import QuizForm
from edgewright_builder.tasks.loading import load_task
from edgewright_builder.tasks.results import ScoredQuestion


def write_evaluation(run: Path, quiz: Path, form: QuizForm) -> None:
    """Writes `run/evaluate`. A chat needs a tokenizer in `run/student/model`."""
    task = load_task(str(quiz), quiz=quiz_of(form, run / "student" / "model"))
    outcomes = [
        asdict(ScoredQuestion(question.id, (0.0, -1.0), acc=True, acc_norm=True))
        for question in task.questions
    ]
    stored = {
        "fingerprint": f"x:{task.digest()}", "source": str(quiz), "metric": task.metric, "outcomes": outcomes,
    }  # fmt: skip
    results = {
        "models": ["student", "exported"], "quiz": form, "tasks": {task.name: {"rows": len(outcomes)}},
    }  # fmt: skip
    (run / "evaluate" / "exported").mkdir(parents=True)
    (run / "evaluate" / "exported" / f"{task.name}.json").write_text(json.dumps(stored))
    (run / "evaluate" / "results.json").write_text(json.dumps(results))
