"""A bench as one self-contained HTML page, and as the part of a run's report that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgewright.errors import InputError
from edgewright_builder.bench import tables
from edgewright_builder.bench.results import Bench
from edgewright_builder.report.bench_figures import bench_figures

TEMPLATES = "edgewright_builder.report"


@dataclass(frozen=True)
class Compared:
    """Two benches side by side."""

    columns: tuple[str, ...]
    rows: tables.Rows
    unlike: list[str]  # why they can't be compared number by number


@dataclass(frozen=True)
class BenchView:
    """All that the template shows of a bench."""

    facts: tables.Facts
    pictures: dict[str, Markup]
    latency_columns: tuple[str, ...]
    latency_rows: tables.Rows
    compared: Compared | None


def draw_bench(bench: Bench, before: Bench | None = None) -> BenchView:
    """Facts, pictures and tables of a bench, and of an earlier one beside it."""
    return BenchView(
        tables.facts(bench),
        bench_figures(bench, before),
        tables.LATENCY_COLUMNS,
        tables.latency_rows(bench),
        compare(before, bench) if before else None,
    )


def compare(before: Bench, after: Bench) -> Compared:
    """Returns the two side by side."""
    return Compared(*tables.comparison(before, after), tables.unlike(before, after))


def environment() -> Environment:
    """Returns where the report's templates are."""
    return Environment(
        loader=PackageLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_bench_page(path: Path, bench: Bench, before: Bench | None = None) -> None:
    """Writes the page to `path`. Raises InputError if that can't be written."""
    template = environment().get_template("bench_page.html.j2")
    page = template.render(drawn=draw_bench(bench, before), title=bench.title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} can't be written ({error.strerror}).") from error
