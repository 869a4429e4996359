"""Shows the findings to people and to scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from edgewright_agent.doctor.finding import Finding, Severity

COLORS = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.PROBLEM: "red"}


def lines(findings: Mapping[str, Finding]) -> Iterator[tuple[Severity | None, str]]:
    """Yields one line per finding, its remedy below it, and the totals; each with the severity that colours it."""
    width = max((len(name) for name in findings), default=0)
    for name, found in findings.items():
        yield found.result, f"{found.result.value:8}{name:{width}}  {found.sentence}"
        if found.remedy:
            yield None, f"{'':{8 + width}}  → {found.remedy}"
    counts = Counter(found.result for found in findings.values())
    yield None, ", ".join(_counted(counts[result], result) for result in Severity)


def _counted(count: int, result: Severity) -> str:
    return f"{count} {result.value}{'' if result is Severity.OK or count == 1 else 's'}"


def to_json(findings: Mapping[str, Finding]) -> dict[str, Any]:
    """Returns plain values for `json.dumps`."""
    rows = [
        {"check": name, **asdict(found), "result": found.result.value} for name, found in findings.items()
    ]
    return {"healthy": healthy(findings), "findings": rows}


def healthy(findings: Mapping[str, Finding]) -> bool:
    """Whether there is no problem; warnings are allowed."""
    return all(found.result is not Severity.PROBLEM for found in findings.values())
