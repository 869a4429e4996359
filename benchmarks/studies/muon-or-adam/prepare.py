"""Prepares what the studies beside this folder read: `python prepare.py BENCHMARKS`.

BENCHMARKS holds TASK/train*.jsonl, TASK/eval.jsonl and wikitext2/valid*.txt. Writes `data/pairs/TASK.jsonl`, question
and right choice of 300 rows of the train split, evenly spread, or of all if there are fewer; and `data/wikitext.txt`,
the paragraphs of WikiText-2's validation text. Links `data/rows` to the folder. No row of an eval.jsonl is learned
from: the build itself drops what repeats one of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAIRS = 300
TASKS = ("arc_easy", "piqa", "openbookqa", "social_i_qa")
PARAGRAPH_CHARACTERS_MIN = 200  # shorter lines are headings
DATA = Path(__file__).resolve().parent / "data"


def main(benchmarks: Path) -> None:
    """Writes the pairs of every task, and the general text."""
    (DATA / "pairs").mkdir(parents=True, exist_ok=True)
    (DATA / "rows").unlink(missing_ok=True)
    (DATA / "rows").symlink_to(benchmarks.resolve())
    for task in TASKS:
        (source,) = benchmarks.joinpath(task).glob("train*.jsonl")
        with source.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        count = min(PAIRS, len(rows))
        pairs = [pair_of(rows[len(rows) * place // count]) for place in range(count)]
        text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        (DATA / "pairs" / f"{task}.jsonl").write_text(text, encoding="utf-8")
    (wikitext,) = benchmarks.joinpath("wikitext2").glob("valid*.txt")
    lines = (line.strip() for line in wikitext.read_text(encoding="utf-8").splitlines())
    paragraphs = [line for line in lines if len(line) >= PARAGRAPH_CHARACTERS_MIN]
    (DATA / "wikitext.txt").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def pair_of(row: dict[str, Any]) -> dict[str, str]:
    """Returns the question, after its context where it has one, and the right choice."""
    question = " ".join(text for text in (row.get("context"), row["question"]) if text)
    return {"instruction": question, "input": "", "output": row["choices"][row["answer"]]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
