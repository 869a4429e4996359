"""Answers of `check` and `plan` as people read them: on a terminal or in a pipe."""

from __future__ import annotations

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgewright.sizes import format_bytes
from edgewright_builder.fit.check import Check, FitVerdict
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.memory import PeakMemory, TensorClass
from edgewright_builder.fit.plan import BuildPlan, PlanSearch
from edgewright_builder.fit.speed import Speed

BAR_CELLS = 48
COLOURS = {
    "linear": "cyan", "embedding": "blue", "head": "blue", "norm": "blue", "KV cache": "magenta",
    "activations": "yellow", "logits": "yellow", "lookup": "yellow", "second copies": "red", "runtime": "white",
}  # fmt: skip
CHANGES_MAX = 6


def print_check(console: Console, answer: Check, recommendation: str | None = None) -> None:
    """Prints the verdict, the breakdown, what is the most that fits, what would make it fit, speed, settings."""
    question, plan = answer.question, answer.plan
    console.print(_verdict(answer))
    if recommendation is not None:
        console.print(f"  {recommendation}", markup=False, soft_wrap=True)
    console.print(f"  rests on: {plan.calibrated_on}", style="dim", markup=False, soft_wrap=True)
    if answer.why_not_served is None:
        console.print(f"  {_proof(answer)}", style="dim", markup=False, soft_wrap=True)
    for sentence in answer.caveats:
        console.print(f"  {sentence}", style="yellow", markup=False, soft_wrap=True)
    if answer.verdict is FitVerdict.NOT_SERVED:
        return
    console.print(_breakdown(plan))
    console.print(_bar(plan))
    if answer.largest_context_tokens:
        console.print(
            f"Largest context: {answer.largest_context_tokens:,} tokens at {question.concurrency} at once. "
            f"Most at once: {answer.largest_concurrency} with {question.context_tokens:,} tokens each.",
            soft_wrap=True,
        )
    else:
        console.print("No context fits at whole depth.")
    if answer.changes:
        console.print(_changes(answer, ruled=console.is_terminal))
    console.print(_speed(answer.speed), markup=False, soft_wrap=True)
    console.print(_settings(answer), markup=False, soft_wrap=True)


def _proof(answer: Check) -> str:
    """Whether it is proved that the engine computes what transformers computes."""
    if answer.proof is not None:
        versions = ", ".join(
            f"{name} {version}" for name, version in answer.proof.versions.items() if name != "code"
        )
        return f"proved: {answer.proof} ({versions})"
    traits = engine_traits(answer.plan.engine)
    if not traits.runs_on_host:
        return (
            "computed from the checkpoint's own weights; the board compares its answers before it keeps them"
        )
    if traits.proof is None:
        return "computed from the checkpoint's own weights; a build compares its answers before it ships"
    return (
        "not proved to compute what transformers computes: `--prove` tries a tiny model of this configuration"
    )


def _speed(speed: Speed) -> str:
    """Time and, where it was measured, energy of one request that decodes alone."""
    joules = (
        ""
        if speed.joules_per_token_min is None
        else f", {speed.joules_per_token_min:.3g} to {speed.joules_per_token_max:.3g} J a token"
    )
    return (
        f"Predicted TPOT: {1e3 * speed.tpot_seconds_min:.1f} to {1e3 * speed.tpot_seconds_max:.1f} ms "
        f"({1 / speed.tpot_seconds_max:.1f} to {1 / speed.tpot_seconds_min:.1f} tokens/s){joules}, from "
        f"{speed.rests_on}."
    )


def _settings(answer: Check) -> str:
    """Returns what to build: this configuration, or what the first change that fits makes of it."""
    if answer.verdict is FitVerdict.FITS:
        return f"Settings: {settings(answer.plan)}"
    fitting = next((change for change in answer.changes if change.fits), None)
    if fitting is None:
        return "Settings: none, as nothing above is enough; take a smaller model or a larger budget."
    return f"Settings with {fitting.title}: {settings(fitting.plan)}"


def settings(plan: BuildPlan) -> str:
    """Returns the recipe's keys that build this configuration."""
    m = plan.configuration
    return (
        f"serving.engine: {plan.engine}, serving.context_tokens: {m.context_tokens}, "
        f"serving.concurrency: {m.concurrency}, quantize.group_size: {m.group_size}, "
        f"quantize.embedding_bits: {m.embedding_bits}, student.depth: {m.layers}"
    )


def print_search(console: Console, search: PlanSearch) -> None:
    """The Pareto front, the chosen plan marked."""
    columns = ("", "layers", "emb.", "group", "KV", "context", "at once", "loss", "peak", "spare")
    table = Table(*columns, header_style="bold cyan", padding=(0, 1, 0, 0), box=None)
    for plan in search.front:
        table.add_row(*_front_row(plan, chosen=plan == search.chosen))
    console.print(table)
    console.print(
        f"{search.fitting} of {search.candidates} configurations fit; {len(search.front)} are beaten by no other. "
        "Loss: expected divergence from the 16-bit model in nats per token, before distillation and recovery.",
        style="dim", soft_wrap=True,
    )  # fmt: skip
    rests_on = {plan.calibrated_on: plan.error_bytes / plan.memory.peak_bytes for plan in search.front}
    for calibrated_on, error in rests_on.items():
        console.print(
            f"Peaks are ± {error:.1%} and rest on: {calibrated_on}.",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"Chosen: {settings(search.chosen)}", markup=False, soft_wrap=True)


def breakdown(memory: PeakMemory) -> list[tuple[str, int, str]]:
    """(name, bytes, detail) of every part of the predicted peak, largest classes of tensors first."""
    tied = " (tied with the head)" if memory.tied else ""
    rows = [
        (
            tensor.name,
            tensor.stored_bytes - _in_file(memory, tensor),
            _weights(tensor) + (tied if tensor.name == "embedding" else ""),
        )
        for tensor in memory.tensors
    ]
    return [
        *rows,
        ("KV cache", memory.kv_cache_bytes, "grouped heads and sliding windows counted"),
        ("activations", memory.layer_activation_bytes, "the widest layer of one slice of the prompt"),
        ("logits", memory.logits_bytes, "of that slice"),
        ("lookup", memory.lookup_bytes, "pages of the file that the slice's embeddings are read from"),
        ("second copies", memory.second_copies_bytes, "weights the engine repacks and keeps"),
        ("runtime", memory.runtime_bytes, "interpreter, libraries, tokenizer, allocator"),
    ]


def _in_file(memory: PeakMemory, tensor: TensorClass) -> int:
    """Returns the bytes of an untied embedding that stay in the file: only what is looked up is in memory."""
    return memory.mapped_bytes if tensor.name == "embedding" else 0


def _weights(tensor: TensorClass) -> str:
    extras = [("scales", tensor.scales_bytes), ("zeros", tensor.zeros_bytes)]
    more = "".join(f" + {name} {format_bytes(size_bytes)}" for name, size_bytes in extras if size_bytes)
    return f"{tensor.parameters / 1e6:,.1f} M weights, {format_bytes(tensor.codes_bytes)}{more}"


def _verdict(answer: Check) -> Text:
    question, plan = answer.question, answer.plan
    what = f"{question.model.name} on {question.profile.name}: "
    if answer.verdict is FitVerdict.NOT_SERVED:
        return Text.assemble(
            (what, "bold"), (f"{answer.verdict.value}", "bold red"), f": {answer.why_not_served}"
        )
    spare = answer.spare_bytes
    peak = (
        f"{format_bytes(plan.memory.peak_bytes)} ± {format_bytes(plan.error_bytes)} of "
        f"{format_bytes(plan.budget_bytes)}"
    )
    room = (
        f"{format_bytes(spare)} to spare"
        if spare >= 0
        else f"{format_bytes(-spare)} too much at its upper end"
    )
    colour = {FitVerdict.FITS: "green", FitVerdict.UNCERTAIN: "yellow"}.get(answer.verdict, "red")
    return Text.assemble((what, "bold"), (answer.verdict.value, f"bold {colour}"), f", {room} ({peak})")


def _breakdown(plan: BuildPlan) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("of the peak", justify="right")
    table.add_column("")
    peak = plan.memory.peak_bytes
    for name, size_bytes, detail in breakdown(plan.memory):
        if size_bytes:
            table.add_row(name, format_bytes(size_bytes), f"{size_bytes / peak:.0%}", Text(detail, "dim"))
    steady, load = format_bytes(plan.memory.steady_bytes), format_bytes(plan.memory.load_peak_bytes)
    table.add_row(Text("peak", "bold"), format_bytes(peak), "", f"steady {steady}, while loading {load}")
    return table


def _bar(plan: BuildPlan) -> Text:
    """Returns the parts against the budget; `|` is where the budget ends."""
    whole = max(plan.budget_bytes, plan.bound.upper_bytes)
    text, drawn, total = Text("  "), 0, 0
    for name, size_bytes, _ in breakdown(plan.memory):
        total += size_bytes
        cells = round(total / whole * BAR_CELLS) - drawn
        text.append("█" * cells, COLOURS[name])
        drawn += cells
    text.append("░" * (BAR_CELLS - drawn), "dim")
    budget_at = 2 + round(plan.budget_bytes / whole * BAR_CELLS)
    return text[:budget_at] + Text("|", "bold") + text[budget_at:]


def _changes(answer: Check, *, ruled: bool) -> Table:
    table = Table(
        "what would help", "saves", "costs", "then", header_style="bold cyan",
        box=HEAVY_HEAD if ruled else None, padding=(0, 1) if ruled else (0, 2, 0, 0),
    )  # fmt: skip
    for change in answer.changes[:CHANGES_MAX]:
        then = Text("fits", "green") if change.fits else Text("still does not fit", "red")
        table.add_row(escape(change.title), format_bytes(change.saves_bytes), change.cost, then)
    return table


def _front_row(plan: BuildPlan, *, chosen: bool) -> tuple[str, ...]:
    m = plan.configuration
    return (
        "→" if chosen else "", f"{m.layers}/{plan.layers_full}", f"{m.embedding_bits} bit",
        str(m.group_size), f"{m.kv_bits} bit", str(m.context_tokens), str(m.concurrency),
        f"{plan.expected_divergence:.3f}", format_bytes(plan.memory.peak_bytes),
        format_bytes(plan.bound.spare_bytes),
    )  # fmt: skip
