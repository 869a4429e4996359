"""Shows the findings to people and to scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypedDict

from edgewright_agent.doctor.finding import Finding, Severity

COLORS = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.PROBLEM: "red"}


class FindingDocument(TypedDict):
    """One finding."""

    check: str
    result: str  # ok, warning, problem
    sentence: str
    remedy: str


class DoctorDocument(TypedDict):
    """What `doctor --json` prints after the name of its schema."""

    healthy: bool
    findings: list[FindingDocument]


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


def to_json(findings: Mapping[str, Finding]) -> DoctorDocument:
    """Returns plain values for `json.dumps`."""
    rows: list[FindingDocument] = [
        {"check": name, "result": found.result.value, "sentence": found.sentence, "remedy": found.remedy}
        for name, found in findings.items()
    ]
    return {"healthy": healthy(findings), "findings": rows}


def healthy(findings: Mapping[str, Finding]) -> bool:
    """Whether there is no problem; warnings are allowed."""
    return all(found.result is not Severity.PROBLEM for found in findings.values())
