"""Benchmark results as the files that `edgewright bench --save` writes."""

from __future__ import annotations

from typing import Any

from edgewright_builder.bench.results import Bench
from edgewright_builder.python_api.results.bench import bench_report
from edgewright_builder.show.document import document


def bench_document(bench: Bench) -> dict[str, Any]:
    saved: dict[str, Any] = document(bench_report(bench))
    return saved
