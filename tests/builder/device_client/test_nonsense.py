"""A board that answers nonsense ends each command in one sentence: no traceback, no hang, no figure made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from typer.testing import CliRunner

from edgewright.errors import EdgewrightError, OutsideError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright.v1 import trust_pb2 as trust
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.cli.main import app
from edgewright_builder.device_client import client as client_module
from edgewright_builder.device_client import verdict as verdict_module
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.link import Link
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.push import push as push_module
from edgewright_builder.python_api import async_board
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.nonsense_board import Answer, Forever, Silence, nonsense_board

NAN, INFINITE = float("nan"), float("inf")
MINUS_ONE = 2**64 - 1  # as an unsigned field has it
RELEASE = b"\1" * 32
SERVES = deployment.Release(release=RELEASE, name="x", state=deployment.RELEASE_STATE_ACTIVE)
SNAPSHOT = telemetry.Snapshot(active_release=RELEASE, memory=telemetry.Memory(engine_peak_bytes=1 << 20))
BOARD: dict[str, Answer] = {
    "GetDevice": deployment.GetDeviceResponse(phase=deployment.PHASE_IDLE, active_release=RELEASE),
    "ListReleases": deployment.ListReleasesResponse(releases=[SERVES]),
    "GetSnapshot": telemetry.GetSnapshotResponse(snapshot=SNAPSHOT),
}
GARBAGE = b"\xff\xff\xff\xff nonsense"
LARGE = deployment.ListReleasesResponse(releases=[deployment.Release(name="x" * (5 << 20))])


@pytest.fixture(autouse=True)
def _quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes before a client gives up takes a second here."""
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    for name in ("SILENCE_SECONDS_MAX", "WORK_SECONDS_MAX", "REST_SECONDS_MAX"):
        monkeypatch.setattr(client_module, name, 1.0)
    for method in (Link.stream, client_module.DeviceClient._patient_stream):
        monkeypatch.setattr(method, "__defaults__", (1.0,))
    monkeypatch.setattr(verdict_module, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(verdict_module, "ANSWER_POLL_SECONDS", 0.01)
    for module in (push_module, async_board):
        monkeypatch.setattr(module, "Patience", lambda _: Patience(1.0, cap_seconds=0.1))


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path / "artifact", {"engine/model.bin": bytes(300_000)}, KEY)


def ends_in_a_sentence(answers: dict[str, Answer], *arguments: object) -> str:
    """Runs a command against the board; returns its sentence, and sees that it is one, and nothing else."""
    with nonsense_board(BOARD | answers) as address:
        words = [str(address) if word == "BOARD" else str(word) for word in arguments]
        result = CliRunner().invoke(app, [*words, "--insecure"])
    error = result.exception
    assert isinstance(error, OutsideError), (error, result.output)  # exit 3
    text = str(error)
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 400
    return text


def missing(sha256: bytes, *spans: tuple[int, int], missing_bytes: int = 1) -> Message:
    ranges = [deployment.ChunkRange(first=first, count=count) for first, count in spans]
    blob = deployment.MissingBlob(sha256=sha256, chunks=ranges, missing_bytes=missing_bytes)
    return deployment.FindMissingBlobsResponse(missing=[blob])


def own(artifact: Artifact) -> bytes:
    return bytes.fromhex(artifact.manifest.files[0].sha256)


@pytest.mark.parametrize(
    "nonsense",
    [
        "unknown digest",
        "half a digest",
        "chunk out of range",
        "four billion chunks",
        "no chunk",
        "more than all",
    ],
)
def test_what_a_board_says_to_lack_is_of_what_was_asked(artifact: Artifact, nonsense: str) -> None:
    mine = own(artifact)
    answer = {
        "unknown digest": missing(b"\7" * 32, (0, 1)),
        "half a digest": missing(mine[:16], (0, 1)),
        "chunk out of range": missing(mine, (5, 1)),
        "four billion chunks": missing(mine, (0, 2**32 - 1)),
        "no chunk": missing(mine, (0, 0)),
        "more than all": missing(mine, (0, 1), missing_bytes=1 << 40),
    }[nonsense]
    sentence = ends_in_a_sentence({"FindMissingBlobs": answer}, "push", artifact.folder, "BOARD")
    assert "answers what no agent says" in sentence


def score(*values: float) -> inference.ScoreItemResult:
    return inference.ScoreItemResult(
        continuations=[inference.ContinuationScore(log_likelihood=value) for value in values]
    )


@pytest.mark.parametrize(
    "items",
    [
        [],
        [score()],
        [score(-1.0, -2.0)],
        [score(-1.0), score(-1.0)],
        [score(NAN)],
        [score(INFINITE)],
        [score(3.0)],
    ],
    ids=["no item", "no score", "too many", "too many items", "NaN", "infinite", "above zero"],
)
def test_scores_are_as_many_as_were_asked_and_logarithms(
    tmp_path: Path, items: list[inference.ScoreItemResult]
) -> None:
    quiz = tmp_path / "quiz.jsonl"
    row = {"id": "1", "question": "sun?", "choices": ["yes", "no"], "answer": 0}
    quiz.write_text(json.dumps(row) + "\n", encoding="utf-8")
    sentence = ends_in_a_sentence(
        {"Score": inference.ScoreResponse(items=items)}, "eval", "BOARD", "--tasks", quiz
    )
    assert "answers what no agent says" in sentence


def changed(**values: Any) -> telemetry.GetSnapshotResponse:
    return telemetry.GetSnapshotResponse(snapshot=telemetry.Snapshot(**values))


SNAPSHOTS = {
    "NaN watts": changed(energy=[telemetry.EnergyRail(name="r", watts=NAN)]),
    "negative joules": changed(energy=[telemetry.EnergyRail(name="r", joules=-3.0)]),
    "infinite temperature": changed(temperatures=[telemetry.Temperature(zone="z", celsius=INFINITE)]),
    "negative requests": changed(serving=telemetry.Serving(requests=MINUS_ONE)),
    "negative memory": changed(memory=telemetry.Memory(total_bytes=MINUS_ONE)),
    "negative in flight": changed(serving=telemetry.Serving(requests_in_flight=2**32 - 1)),
    "negative latency": changed(
        serving=telemetry.Serving(time_to_first_token_seconds=telemetry.Distribution(count=1, p50=-1.0))
    ),
    "load above one": changed(gpu_load_ratio=40.0),
    "no year": changed(unix_seconds=1e18),
    "short release": changed(active_release=b"\1\2"),
}


@pytest.mark.parametrize("kind", SNAPSHOTS)
@pytest.mark.parametrize("form", ["--json", "--text"])
def test_no_impossible_figure_of_a_snapshot_is_shown(kind: str, form: str) -> None:
    words = ["telemetry", "BOARD", *(["--json"] if form == "--json" else [])]
    sentence = ends_in_a_sentence({"GetSnapshot": SNAPSHOTS[kind]}, *words)
    assert "answers what no agent says" in sentence


ANSWERS: dict[str, tuple[list[object], dict[str, Answer]]] = {
    "garbage for a device": (["status", "BOARD"], {"GetDevice": GARBAGE}),
    "garbage for releases": (["releases", "BOARD"], {"ListReleases": GARBAGE}),
    "garbage in a stream": (["generate", "BOARD", "hello"], {"Generate": GARBAGE}),
    "no answer": (["status", "BOARD"], {"GetDevice": []}),
    "a message over 4 MiB": (["releases", "BOARD"], {"ListReleases": LARGE}),
    "more tokens than asked": (
        ["generate", "BOARD", "hello", "--max-tokens", "3"],
        {"Generate": Forever(lambda _: inference.GenerateResponse(deltas=[inference.TextDelta(text="x")]))},
    ),
    "empty messages for ever": (
        ["generate", "BOARD", "hello"],
        {"Generate": Forever(lambda _: inference.GenerateResponse())},
    ),
    "no text at all": (["generate", "BOARD", "hello"], {"Generate": Silence()}),
    "no end of the text": (["generate", "BOARD", "hello"], {"Generate": []}),
    "text after the end": (
        ["generate", "BOARD", "hello"],
        {"Generate": Forever(lambda _: inference.GenerateResponse(completion=inference.Completion()))},
    ),
    "NaN for a first token": (
        ["generate", "BOARD", "hello"],
        {
            "Generate": [
                inference.GenerateResponse(completion=inference.Completion(time_to_first_token_seconds=NAN))
            ]
        },
    ),
    "a scrub without end": (
        ["scrub", "BOARD"],
        {"ScrubStore": Forever(lambda _: deployment.ScrubStoreResponse(blobs=1, bytes=1, total_bytes=9))},
    ),
    "a scrub of more than there is": (
        ["scrub", "BOARD"],
        {"ScrubStore": [deployment.ScrubStoreResponse(blobs=1, bytes=10, total_bytes=9)]},
    ),
    "a scrub that is not done": (
        ["scrub", "BOARD"],
        {"ScrubStore": [deployment.ScrubStoreResponse(blobs=1, bytes=1, total_bytes=9)]},
    ),
    "negative garbage": (
        ["gc", "BOARD"],
        {"CollectGarbage": deployment.CollectGarbageResponse(freed_bytes=MINUS_ONE)},
    ),
    "progress without end": (
        ["bench", "BOARD"],
        {
            "RunBenchmark": Forever(
                lambda _: telemetry.RunBenchmarkResponse(
                    progress=telemetry.BenchmarkProgress(prompts_total=9)
                )
            )
        },
    ),
    "a NaN for a result": (
        ["bench", "BOARD"],
        {
            "RunBenchmark": telemetry.RunBenchmarkResponse(
                result=telemetry.BenchmarkResult(duration_seconds=NAN)
            )
        },
    ),
    "a record that runs in a circle": (
        ["telemetry", "BOARD", "--recorded-after", "0"],
        {
            "WatchTelemetry": Forever(
                lambda _: telemetry.WatchTelemetryResponse(sequence=7, snapshot=SNAPSHOT)
            )
        },
    ),
    "a watch that stops": (["telemetry", "BOARD", "--follow"], {"WatchTelemetry": Silence()}),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_every_command_ends_in_one_sentence(case: str) -> None:
    words, answers = ANSWERS[case]
    ends_in_a_sentence(answers, *words)


def phase(number: Any, **values: Any) -> deployment.WatchDeploymentResponse:
    return deployment.WatchDeploymentResponse(phase=number, **values)


NEVER_AT_REST: dict[str, Answer] = {
    "one phase again and again": Forever(lambda _: phase(deployment.PHASE_ACTIVATING)),
    "two phases in turn": Forever(
        lambda n: phase((deployment.PHASE_ACTIVATING, deployment.PHASE_ROLLING_BACK)[n % 2])
    ),
    "a new message each time": Forever(lambda n: phase(deployment.PHASE_PROBATION, message=f"{n} done"), 0.0),
    "a stream that ends": [phase(deployment.PHASE_PROBATION)],
    "a stream that is empty": [],
    "a stream that is silent": Silence((phase(deployment.PHASE_PROBATION),)),
    "a phase of no name": Forever(lambda _: phase(99)),
    "another release": [phase(deployment.PHASE_IDLE, active_release=b"\3" * 32)],
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", NEVER_AT_REST)
def test_a_board_that_never_comes_to_rest_is_given_up(artifact: Artifact, kind: str) -> None:
    release = bytes.fromhex(artifact.digest)
    answers: dict[str, Answer] = {
        "FindMissingBlobs": deployment.FindMissingBlobsResponse(),
        "StageRelease": deployment.StageReleaseResponse(release=release),
        "ActivateRelease": deployment.ActivateReleaseResponse(),
        "WatchDeployment": NEVER_AT_REST[kind],
    }
    ends_in_a_sentence(answers, "push", artifact.folder, "BOARD")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("then", [deployment.PHASE_ACTIVATING, deployment.PHASE_IDLE])
def test_a_board_that_contradicts_itself_is_given_up(artifact: Artifact, then: Any) -> None:
    release = bytes.fromhex(artifact.digest)
    answers: dict[str, Answer] = {
        "FindMissingBlobs": deployment.FindMissingBlobsResponse(),
        "StageRelease": deployment.StageReleaseResponse(release=release),
        "ActivateRelease": deployment.ActivateReleaseResponse(),
        "WatchDeployment": [phase(deployment.PHASE_IDLE, active_release=release)],
        "GetSnapshot": telemetry.GetSnapshotResponse(snapshot=telemetry.Snapshot()),
        "GetDevice": deployment.GetDeviceResponse(phase=then, active_release=release),
    }
    ends_in_a_sentence(answers, "push", artifact.folder, "BOARD")


BASES = [
    "{",
    "[]",
    '"x"',
    "{}",
    '{"architecture": {}, "configuration": {}}',
    '{"architecture": 3}',
    "NaN",
    "[" * 5000,
]


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("command", ["calibrate", "bench"])
def test_a_release_whose_basis_is_nonsense_ends_no_command_in_a_traceback(basis: str, command: str) -> None:
    release = deployment.Release(release=RELEASE, name="x", prediction_basis=basis)
    result = telemetry.BenchmarkResult(prompts=1, duration_seconds=1.0)
    answers = BOARD | {
        "ListReleases": deployment.ListReleasesResponse(releases=[release]),
        "RunBenchmark": telemetry.RunBenchmarkResponse(result=result),
    }
    with nonsense_board(answers) as address:
        done = CliRunner().invoke(app, [command, str(address), "--insecure"])
    assert done.exception is None or isinstance(done.exception, (EdgewrightError, SystemExit)), done.exception


def test_what_a_board_says_does_not_drive_the_terminal(artifact: Artifact) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07"
    answers: dict[str, Answer] = {
        "FindMissingBlobs": deployment.FindMissingBlobsResponse(),
        "StageRelease": deployment.StageReleaseResponse(release=bytes.fromhex(artifact.digest)),
        "ActivateRelease": deployment.ActivateReleaseResponse(),
        "WatchDeployment": [
            phase(
                deployment.PHASE_IDLE, outcome=deployment.OUTCOME_ROLLED_BACK, message=evil,
                probes=[deployment.ProbeResult(name=evil, required=True, detail=evil)],
            )
        ],
    }  # fmt: skip
    with nonsense_board(BOARD | answers) as address:
        done = CliRunner().invoke(app, ["push", str(artifact.folder), str(address), "--insecure"])
    assert "\x1b" not in done.output + str(done.exception)
    assert "\x07" not in done.output + str(done.exception)


@pytest.mark.parametrize(
    ("before", "after"),
    [(MINUS_ONE, 1), (0, 0), (0, MINUS_ONE)],
    ids=["a negative one before", "none after", "a negative one after"],
)
def test_a_trust_document_of_no_version_is_not_reported_as_in_force(
    tmp_path: Path, before: int, after: int
) -> None:
    create_credentials(tmp_path / "keys", ())
    answers: dict[str, Answer] = {
        "GetTrust": trust.GetTrustResponse(version=before),
        "UpdateTrust": trust.UpdateTrustResponse(version=after),
    }
    with nonsense_board(answers) as address:
        words = ["keys", "trust", str(tmp_path / "keys"), str(address), "--insecure"]
        done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, EdgewrightError)
    assert "is in force (" not in done.output
