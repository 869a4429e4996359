"""What each command prints with --json is valid by the schema that the document names."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import json_schemas
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_agent.cli import app as agent_app
from edgewright_builder.bench.results import Bench, BenchSubject
from edgewright_builder.cli.main import app
from edgewright_builder.cli.output import document_of
from edgewright_builder.fit.speed import MeasuredDecode
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.python_api.results.bench import bench_report
from edgewright_builder.python_api.results.calibration import BoardCalibrated
from edgewright_builder.python_api.results.trust import BoardTrust, TrustUpdate, UntrustedRelease
from tests.builder.fit.test_board_refit import ENGINE, point
from tests.support.agent_process import serving
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.device_simulator import Board, simulated_in_thread

ORIN = "jetson-orin-nano-super"


def validate(document: dict[str, Any]) -> str:
    name = str(document.get("schema") or document["schema_version"])
    schema = json.loads((json_schemas.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(document)
    return name


def printed(*arguments: object, program: Any = app) -> list[str]:
    """Returns the names of the documents that a command printed, after it has validated them."""
    result = CliRunner().invoke(program, [str(argument) for argument in (*arguments, "--json")])
    names, decoder, rest = [], json.JSONDecoder(), result.stdout.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        names.append(validate(document))
        rest = rest[end:].lstrip()
    assert names, result.exception
    return names


def snapshot() -> telemetry.Snapshot:
    times = telemetry.Distribution(count=4, mean=0.02, p50=0.02, p90=0.03, p99=0.03, max=0.031)
    return telemetry.Snapshot(
        serving=telemetry.Serving(requests=4, generated_tokens=64, time_to_first_token_seconds=times),
        memory=telemetry.Memory(total_bytes=8 << 30, budget_bytes=4 << 30, engine_bytes=100 << 20),
        energy=[telemetry.EnergyRail(name="A", joules=30, watts=2.5)],
        temperatures=[telemetry.Temperature(zone="tj", celsius=61.5)],
        clocks=[telemetry.Clock(unit="gpu", hertz=900_000_000)],
        sensors=[telemetry.Sensor(name="ina3221", detail="no such chip")],
    )


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("check", "llama-3.2-3b", "--device", ORIN), "check"),
        (("check", "llama-3.2-3b", "--device", ORIN, "--budget", "1GiB"), "check"),
        (("check", "--all"), "matrix"),
        (("check", "--list"), "models"),
        (("plan", "smollm2-1.7b", "--device", ORIN, "--budget", "1.5GiB"), "plan"),
        (("profiles", "list"), "profiles"),
        (("profiles", "show", ORIN), "profile"),
    ],
)
def test_a_command_of_this_machine_prints_the_document_it_names(
    arguments: tuple[str, ...], name: str
) -> None:
    assert printed(*arguments) == [json_schemas.name_of(name)]


def test_a_command_that_asks_a_board_prints_the_document_it_names(
    board: Board, host: str, tmp_path: Path
) -> None:
    board.staged, board.active, board.tokens = {b"\3" * 32}, b"\3" * 32, ["a", "b"]
    board.snapshots, board.corrupt = [snapshot()] * 2, True
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text(json.dumps({"question": "Sky?", "choices": ["blue", "wide"], "answer": 0}) + "\n")
    assert printed("status", host, "--insecure") == ["edgewright.status.v1"]
    assert printed("gc", host, "--insecure") == ["edgewright.gc.v1"]
    assert printed("scrub", host, "--insecure") == ["edgewright.scrub.v1"]
    assert printed("generate", host, "x", "--raw", "--insecure") == ["edgewright.generate.v1"]
    assert printed("eval", host, "--insecure", "--tasks", quiz) == ["edgewright.eval.v2"]
    assert printed("telemetry", host, "--insecure") == ["edgewright.telemetry.v1"]
    assert printed("telemetry", host, "--insecure", "--follow") == ["edgewright.telemetry.v1"] * 2
    recorded = printed("telemetry", host, "--insecure", "--recorded-after", 0)
    assert set(recorded) == {"edgewright.telemetry-record.v1"}
    assert printed("releases", host, "--insecure") == ["edgewright.releases.v1"]
    assert printed("releases", host, "--insecure", "--delete", "0303") == ["edgewright.releases.v1"]


def test_push_rollout_and_diff_print_the_documents_they_name(board: Board, host: str, tmp_path: Path) -> None:
    old = make_artifact(tmp_path / "old", {"engine/model.bin": bytes(1024)}, KEY)
    new = make_artifact(tmp_path / "new", {"engine/model.bin": b"new"}, KEY)
    assert printed("push", old.folder, host, "--insecure") == ["edgewright.push.v1"]
    assert printed("push", old.folder, host, "--insecure", "--no-activate") == ["edgewright.push.v1"]
    assert printed("diff", old.folder, new.folder) == ["edgewright.diff.v1"]
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"name: test\ndevices: [{host}]\n")
    assert printed("push", new.folder, "--fleet", fleet, "--insecure") == ["edgewright.rollout.v1"]
    board.verdict = [
        deployment.WatchDeploymentResponse(
            phase=deployment.PHASE_IDLE, active_release=b"\2" * 32, message="too slow",
            outcome=deployment.OUTCOME_ROLLED_BACK,
        )
    ]  # fmt: skip
    assert printed("push", old.folder, host, "--insecure") == ["edgewright.push.v1"]


def test_the_documents_of_trust_are_valid_also_where_a_board_failed(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    CliRunner().invoke(app, ["keys", "create", str(keys)])
    assert printed("keys", "trust", keys) == ["edgewright.trust.v1"]
    withdrawn = (UntrustedRelease("03" * 32, active=True, stop=False, reason="a bug"),)
    told = TrustUpdate((BoardTrust("b:1", 2, 1, withdrawn), BoardTrust("b:2", error="out of reach")))
    validate(document_of("trust-update", told))


def test_measurements_are_valid_also_with_figures_that_are_missing(tmp_path: Path) -> None:
    run = telemetry.BenchmarkResult(prompts=4, concurrency=1, duration_seconds=2.0)
    report = bench_report(Bench(BenchSubject("b:1"), (run,)))
    validate(document_of("bench", report))
    validate(document_of("bench", report.compared(report)))
    decode = MeasuredDecode(10, 0.1, None, "15W")
    made = BoardCalibrated("b", "vllm", "1", 1, tmp_path / "b.json", 10, float("nan"), 11, "pss", decode)
    validate(document_of("calibrate", made))


def test_calibrate_prints_the_document_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path / "data"))
    one = point("smollm2-135m", 30 << 20)
    basis = {"architecture": asdict(one.architecture), "configuration": asdict(one.configuration)}
    release = deployment.Release(release=b"\3" * 32, engine=ENGINE, prediction_basis=json.dumps(basis))
    measured = telemetry.Snapshot(
        active_release=b"\3" * 32,
        serving=telemetry.Serving(requests=9),
        memory=telemetry.Memory(engine_peak_bytes=one.measured_peak_bytes, engine_measure="cgroup"),
    )
    board = Board(engine=ENGINE, active=b"\3" * 32, releases=[release], snapshots=[measured])
    with simulated_in_thread(board) as address:
        assert printed("calibrate", address, "--insecure") == ["edgewright.calibrate.v1"]
        assert printed("calibrate", address, "--insecure", "--as-served") == ["edgewright.calibrate.v1"]


@pytest.mark.usefixtures("prompt_retries")
def test_a_real_agent_s_releases_figures_and_trust(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    CliRunner().invoke(app, ["keys", "create", str(keys)])
    key = load_signing_key(keys / "release.key")
    old, new = (
        make_artifact(
            tmp_path / name, {"engine/model.bin": name.encode()}, key, device_profiles=("raspberry-pi-5-8gb",)
        )
        for name in ("old", "new")
    )
    options = (
        "--listen",
        "127.0.0.1:0",
        "--insecure",
        "--trust",
        str(keys / "release.pub"),
        "--probation",
        "0",
    )
    with serving(tmp_path / "store", *options) as agent:
        for artifact in (old, new):
            pushed = printed("push", artifact.folder, agent.address, "--insecure")
            assert pushed == ["edgewright.push.v1"]
        load = ("--prompts", 2, "--input", 8, "--output", 4)
        assert printed("bench", agent.address, "--insecure", *load) == ["edgewright.bench.v1"]
        assert printed("rollback", agent.address, "--insecure") == ["edgewright.rollback.v1"]
        told = printed("keys", "trust", keys, agent.address, "--insecure")
        assert told == ["edgewright.trust-update.v1"]
        unreachable = printed("keys", "trust", keys, "127.0.0.1:1", "--insecure")
        assert unreachable == ["edgewright.trust-update.v1"]


def test_what_the_agent_says_of_its_board(tmp_path: Path) -> None:
    assert printed("probe", program=agent_app) == ["edgewright.probe.v1"]
    examined = printed("doctor", "--store", tmp_path, "--no-engines", program=agent_app)
    assert examined == ["edgewright.doctor.v1"]
