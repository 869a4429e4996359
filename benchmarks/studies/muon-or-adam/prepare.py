"""Prepares the rows of this study: `python prepare.py BENCHMARKS`, a folder of TASK/train*.jsonl and TASK/eval.jsonl.

Writes `data/pairs/TASK.jsonl`, question and right choice of 300 rows of the train split, evenly spread, and links
`data/rows` to the folder. No row of an eval.jsonl is learned from: the build itself drops what repeats one of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

PAIRS = 300
TASKS = ("arc_easy", "piqa")
DATA = Path(__file__).resolve().parent / "data"


def main(benchmarks: Path) -> None:
    """Writes the pairs of every task."""
    (DATA / "pairs").mkdir(parents=True, exist_ok=True)
    (DATA / "rows").unlink(missing_ok=True)
    (DATA / "rows").symlink_to(benchmarks.resolve())
    for task in TASKS:
        (source,) = benchmarks.joinpath(task).glob("train*.jsonl")
        with source.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        spread = [rows[len(rows) * place // PAIRS] for place in range(PAIRS)]
        pairs = [
            {"instruction": row["question"], "input": "", "output": row["choices"][row["answer"]]}
            for row in spread
        ]
        text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        (DATA / "pairs" / f"{task}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
