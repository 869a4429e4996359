"""`edgewright bench`: of a board, of a run on this machine, saved, compared, drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from edgewright.errors import InputError
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_builder.bench import tables
from edgewright_builder.bench.local import candidate
from edgewright_builder.bench.results import Bench, BenchSubject, bench_from_json, read_bench
from edgewright_builder.cli.main import app
from tests.support.bench_documents import bench_document
from tests.support.built_artifacts import make_artifact
from tests.support.device_simulator import Board, simulated_in_thread

MIB = 1024 * 1024


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", *(str(argument) for argument in arguments)])


def output(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.exception
    return str(result.stdout)


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, InputError)
    return str(result.exception)


def values(mean: float) -> telemetry.Distribution:
    return telemetry.Distribution(count=4, mean=mean, p50=mean, p90=mean, p99=2 * mean, max=2 * mean)


def run_of(rate: float, **fields: Any) -> telemetry.BenchmarkResult:
    known: dict[str, Any] = {
        "prompts": 4, "input_tokens": 1020, "output_tokens": 1024, "concurrency": 2, "duration_seconds": 8.0,
        "generated_tokens_per_second": rate, "total_tokens_per_second": 2 * rate, "weights_bytes": 60 * MIB,
        "time_to_first_token_seconds": values(0.25), "time_per_output_token_seconds": values(1 / rate),
        "inter_token_latency_seconds": values(1 / rate), "end_to_end_seconds": values(4.0),
    }  # fmt: skip
    return telemetry.BenchmarkResult(**(known | fields))


ENERGY = telemetry.BenchmarkEnergy(
    rail="VDD_IN", whole_module=True, gross_joules_per_output_token=0.5, net_joules_per_output_token=0.2,
    mean_watts=5.0, baseline_watts=3.0, samples=80,
    phases=telemetry.PhaseEnergy(
        prompts=4, prefill_joules_per_input_token=0.01, decode_joules_per_output_token=0.4,
        net_decode_joules_per_output_token=0.15,
    ),
)  # fmt: skip


@pytest.fixture
def board() -> Board:
    return Board(
        tokens=["a"] * 4,
        snapshots=[telemetry.Snapshot(power_mode="15W", memory=telemetry.Memory(budget_bytes=180 * MIB))],
    )


@pytest.fixture
def host(board: Board) -> Iterator[str]:
    with simulated_in_thread(board) as address:
        yield str(address)


def answers(*results: telemetry.BenchmarkResult) -> list[telemetry.RunBenchmarkResponse]:
    progress = telemetry.BenchmarkProgress(prompts_done=1, prompts_total=4, generated_tokens_per_second=4.0)
    return [
        telemetry.RunBenchmarkResponse(progress=progress),
        *(telemetry.RunBenchmarkResponse(result=result) for result in results),
    ]


def test_the_boards_view_and_the_hosts_stand_side_by_side(board: Board, host: str) -> None:
    board.benchmark = answers(run_of(100.0, energy=ENERGY, engine_peak_bytes=90 * MIB, requests_together=1))
    lines = output(host, "--insecure", "--input", 8, "--output", 4).splitlines()
    assert "  load: 4 prompts, 1020 tokens in, 1024 out, 2 at once" in lines
    assert "  requests at once: one after another: TTFT holds the wait" in lines
    assert "  peak memory: 90.0 MiB of 180.0 MiB budget" in lines
    assert "  energy per token, gross: 0.5 J (VDD_IN, whole module)" in lines
    assert "  energy per token, net: 0.2 J (less the idle 3.00 W)" in lines
    assert "  prefill, per input token: 10 mJ (4 prompts served alone)" in lines
    assert "  decode, per output token: 0.4 J, net 0.15 J (4 prompts served alone)" in lines
    assert "  power mode: 15W" in lines
    ttft = next(index for index, line in enumerate(lines) if line.startswith("TTFT\ton the board\t250.0 ms"))
    assert lines[ttft + 1].startswith("\tseen here\t")
    assert any(line.startswith("link\tadds to TTFT\t") for line in lines)


@pytest.mark.parametrize(
    ("together", "told"),
    [
        (1, "one after another: TTFT holds the wait"),
        (4, "4 computed together, the others wait: TTFT holds that"),
        (8, "computed together"),
    ],
)
def test_the_table_says_how_many_requests_were_computed_together(together: int, told: str) -> None:
    bench = Bench(BenchSubject("b:1"), (run_of(9.0, concurrency=8, requests_together=together),))
    assert dict(tables.facts(bench))["requests at once"] == told


def test_without_a_sensor_it_says_so_and_gives_no_joules(board: Board, host: str) -> None:
    board.benchmark = answers(run_of(100.0))
    text = output(host, "--insecure", "--input", 8, "--output", 4, "--host-prompts", 0)
    assert "energy: no energy sensor, so no figure" in text
    assert " J (" not in text
    assert "seen here" not in text
    assert "requests at once" not in text  # this engine does not say


def test_a_run_across_a_gap_of_the_sensor_says_why_it_has_no_joules_per_token(tmp_path: Path) -> None:
    across = telemetry.BenchmarkEnergy(rail="VDD_IN", whole_module=True, samples=80, gaps=2, baseline_watts=3)
    saved = save(tmp_path / "after.json", bench_of(100.0, energy=across))
    old = save(tmp_path / "before.json", bench_of(50.0, energy=ENERGY))
    lines = output(saved, "--compare", old, "--plot", tmp_path / "plot.html").splitlines()
    why = "VDD_IN was silent for over a second 2 times, and what was used meanwhile is not known"
    assert f"  energy per token: no figure: {why}" in lines
    assert "  power: 80 samples, 2 gaps" in lines
    assert "energy per token, gross\t0.5 J\tnot measured\t" in lines
    output(saved, "--plot", tmp_path / "alone.html")
    assert "Energy per token" not in (tmp_path / "alone.html").read_text()


def test_repeats_are_saved_and_the_one_of_median_throughput_is_shown(
    board: Board, host: str, tmp_path: Path
) -> None:
    board.benchmark_repeats = [answers(run_of(rate)) for rate in (90.0, 120.0, 100.0)]
    saved = tmp_path / "bench.json"
    text = output(host, "--insecure", "--repeats", 3, "--host-prompts", 0, "--save", saved)
    assert "output\t100.0 tok/s\t90.0 to 120.0 tok/s" in text
    document = json.loads(saved.read_text())
    assert [run["generated_tokens_per_second"] for run in document["runs"]] == [90.0, 120.0, 100.0]
    assert document["result"]["generated_tokens_per_second"] == 100.0
    assert len({request.seed for request in board.benchmark_requests}) == 3


def test_no_two_benches_send_a_board_the_same_prompts(board: Board, host: str) -> None:
    board.benchmark = answers(run_of(100.0))
    for _ in range(2):
        output(host, "--insecure", "--input", 8, "--output", 4, "--repeats", 3, "--warmup", 0)
    assert len({request.seed for request in board.benchmark_requests}) == 6
    assert len(board.prompts) == len(set(board.prompts)) > 0  # those sent from here


def test_the_seeds_of_a_bench_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
    saved = tmp_path / "bench.json"
    load = ("--prompts", 1, "--input", 16, "--output", 8, "--warmup", 0, "--repeats", 2)
    output("--local", fake_run(tmp_path / "run"), "--stage", "exported", *load, "--save", saved)
    first, second = (run.seed for run in read_bench(saved).runs)
    assert (first > 0, second - first) == (True, 1)


def bench_of(rate: float, subject: BenchSubject | None = None, **fields: Any) -> Bench:
    return Bench(
        subject or BenchSubject("board:7443", "orin", precision="4-bit weights"), (run_of(rate, **fields),)
    )


def save(path: Path, bench: Bench) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bench_document(bench)))
    return path


def test_two_saved_results_are_compared_with_ratios(tmp_path: Path) -> None:
    before = BenchSubject("board:7443", "orin", precision="float32", weights_16bit_bytes=120 * MIB)
    old = save(tmp_path / "before.json", bench_of(50.0, before, weights_bytes=240 * MIB))
    new = save(tmp_path / "after.json", bench_of(100.0, energy=ENERGY))
    lines = output(new, "--compare", old).splitlines()
    assert "\tfloat32, board:7443\t4-bit weights, board:7443\tafter ÷ before" in lines
    assert "size, before at 16 bits\t120.0 MiB\t60.0 MiB\t0.50 ×" in lines
    assert "size\t240.0 MiB\t60.0 MiB\t0.25 ×" in lines
    assert "throughput, output\t50.0 tok/s\t100.0 tok/s\t2.00 ×" in lines
    assert "TPOT mean\t20.0 ms\t10.0 ms\t0.50 ×" in lines
    assert "energy per token, gross\tnot measured\t0.5 J\t" in lines
    assert not any("differ" in line for line in lines)


def test_results_of_other_loads_or_machines_are_compared_with_a_warning(tmp_path: Path) -> None:
    subject = BenchSubject("this machine", "this-host")
    old = save(tmp_path / "before.json", bench_of(50.0, subject, concurrency=8))
    new = save(tmp_path / "after.json", bench_of(100.0))
    text = output(new, "--compare", old)
    assert "The loads differ: 4 prompts, 1020 tokens in, 1024 out, 8 at once; and 4 prompts" in text
    assert "The machines differ: this-host; and orin." in text


def test_a_run_stands_for_its_model_before_quantization(tmp_path: Path) -> None:
    new = save(tmp_path / "after.json", bench_of(100.0))
    run = tmp_path / "run"
    run.mkdir()
    assert f"`edgewright bench --local {run}` does that" in refusal(new, "--compare", run)
    save(run / "bench" / "finetuned.json", bench_of(25.0))
    assert "throughput, output\t25.0 tok/s\t100.0 tok/s\t4.00 ×" in output(new, "--compare", run)


def test_the_drawing_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    old = save(tmp_path / "before.json", bench_of(50.0))
    new = save(tmp_path / "after.json", bench_of(100.0, energy=ENERGY, engine_peak_bytes=90 * MIB))
    page = tmp_path / "plots" / "bench.html"
    output(new, "--compare", old, "--plot", page)
    html = page.read_text()
    for title in (
        "Time to first token",
        "Throughput",
        "Memory",
        "Energy per token",
        "After ÷ before".lower(),
    ):
        assert title in html
    assert "<script" not in html
    assert "http" not in html


@pytest.mark.parametrize("arguments", [[], ["board:1", "--local", "run"]])
def test_what_to_measure_must_be_named_once(arguments: list[str]) -> None:
    assert "Name what to measure" in refusal(*arguments)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", '{"result": 3}', '{"runs": ["x"]}', '{"result": {"prompts": "many"}}']
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(InputError, match="is not a result of"):
        read_bench(path)


def test_a_result_survives_being_saved() -> None:
    subject = BenchSubject("b", "orin", "m", "aa", "4-bit", "onnx 1", 5, 6, "15W", {"gpu": 7})
    bench = Bench(subject, (run_of(9.0), run_of(8.0, energy=ENERGY)), run_of(7.0), values(0.1))
    again = bench_from_json(json.loads(json.dumps(bench_document(bench))))
    assert again == bench
    assert again.typical == run_of(8.0, energy=ENERGY)


def fake_run(folder: Path, kind: str = "fake") -> Path:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    make_artifact(
        folder / "artifact", {"engine/model.bin": bytes(MIB)}, key, engine={"kind": kind, "version": "0"}
    )
    return folder


def with_checkpoint(run: Path) -> Path:
    from tests.support.tiny_model import make_model, make_tokenizer

    checkpoint = run / "finetune" / "model"
    make_model().save_pretrained(checkpoint)
    make_tokenizer().save_pretrained(checkpoint)
    return run


def test_before_quantization_vllm_serves_the_checkpoint_at_16_bits(tmp_path: Path) -> None:
    run = with_checkpoint(fake_run(tmp_path / "run", "vllm"))
    before = candidate(run, "finetuned")
    assert before.precision == "float16"
    assert json.loads((before.tree / "engine" / "config.json").read_text())["dtype"] == "float16"
    made = (before.tree / "engine" / "config.json").stat().st_mtime_ns
    assert candidate(run, "finetuned").tree == before.tree
    assert (
        before.tree / "engine" / "config.json"
    ).stat().st_mtime_ns == made  # the same checkpoint, not again


@pytest.mark.slow
def test_before_quantization_the_default_engine_serves_the_checkpoint_at_32_bits(tmp_path: Path) -> None:
    run = with_checkpoint(fake_run(tmp_path / "run", "onnxruntime-genai"))
    arguments = ("--local", run, "--prompts", 2, "--input", 16, "--output", 8, "--warmup", 0)
    assert (
        f"  model: tiny 1.0, float32, onnxruntime-genai {metadata.version('onnxruntime')}"
        in output(*arguments).splitlines()
    )
    kept = read_bench(run / "bench" / "finetuned.json").typical
    assert (kept.prompts, kept.prompts_failed, kept.output_tokens) == (2, 0, 8)


def test_a_runs_model_is_measured_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
    run = fake_run(tmp_path / "run")
    lines = output(
        "--local", run, "--stage", "exported", "--prompts", 3, "--input", 16, "--output", 8, "--warmup", 0
    ).splitlines()
    assert "  model: tiny 1.0, 4-bit weights, fake 1" in lines  # what ran it, not what the manifest names
    kept = read_bench(run / "bench" / "exported.json").typical
    assert (kept.prompts, kept.prompts_failed, kept.output_tokens, kept.weights_bytes) == (3, 0, 8, MIB)
    assert 8 <= kept.input_tokens <= 16


def test_a_load_beyond_the_context_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
    run = fake_run(tmp_path / "run")
    said = refusal("--local", run, "--stage", "exported", "--input", 200, "--output", 100)
    assert "200 input and 100 output tokens exceed" in said
    assert "context of 256 tokens" in said


def test_a_run_without_a_checkpoint_has_nothing_to_measure_before_quantization(tmp_path: Path) -> None:
    assert "holds no weights" in refusal("--local", fake_run(tmp_path / "run"))
    assert "holds no artifact yet" in refusal("--local", tmp_path)


def test_loads_whose_prompts_differ_by_a_word_are_the_same_load() -> None:
    assert not tables.unlike(bench_of(1.0, input_tokens=1022), bench_of(1.0, input_tokens=1019))
    assert tables.unlike(bench_of(1.0, input_tokens=1024), bench_of(1.0, input_tokens=128))


def test_prompts_that_failed_are_said_to_have_failed() -> None:
    bench = Bench(BenchSubject("b:1"), (run_of(9.0, prompts_failed=1),), run_of(8.0, prompts_failed=2))
    assert dict(tables.facts(bench))["load"].startswith("4 prompts, 1 failed, 1020 tokens in")
    columns, rows = tables.throughput(bench)
    assert columns[-1] == "seen here (4 prompts, 2 failed)"
    assert rows[-1] == ("requests", "0.375 /s", "0.25 /s")


def test_the_folder_of_a_run_is_measured_with_local_and_not_taken_for_an_address(tmp_path: Path) -> None:
    assert refusal(tmp_path, "--insecure") == (
        f"{tmp_path} is a folder; --local {tmp_path} measures the model of a run."
    )
