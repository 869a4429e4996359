"""What a board lives through, told by a host over mTLS; after each step it is known what must survive."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgewright as ew
from edgewright_builder.artifact.artifact import Artifact, open_artifact, write_artifact
from edgewright_builder.keys.key_files import load_signing_key
from virtual_board.needs import NeedError
from virtual_board.power_cuts.store_check import Survives
from virtual_board.settings import SOURCES

MODEL_BYTES = 3 * 2**20
MODULES = ["q_proj", "v_proj"]
FIELDS: dict[str, Any] = {
    "name": "cut",
    "device_profiles": ("this-host",),
    "engine": {"kind": "fake"},
    "model": {
        "architecture": "llama", "parameters": 1000, "layers": 2, "hidden_size": 8, "vocab_size": 32,
        "tied_embeddings": True, "weight_bits": 4, "embedding_bits": 8, "group_size": 64,
    },
    "limits": {"context_tokens": 256},
    "memory": {"budget_bytes": 2**30, "predicted_peak_bytes": 2**20, "error_bytes": 1024, "calibrated_on": "cuts"},
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A step that was answered: from here in the log on, what must survive."""

    name: str
    log_bytes: int
    after: Survives


@dataclass(frozen=True)
class Timeline:
    """The steps beside the flushes of the log: which of them a cut comes after."""

    steps: list[Step]
    flush_ends: list[int]

    def done(self, log_end: int) -> int:
        """Returns the number of the last step that was answered for, and durable, before that flush."""
        durable_from = [max(end for end in self.flush_ends if end <= step.log_bytes) for step in self.steps]
        return max(index for index, end in enumerate(durable_from) if end <= log_end or index == 0)

    def under_way(self, done: int) -> str:
        """Returns the name of the step that a cut after step `done` comes in."""
        return self.steps[min(done + 1, len(self.steps) - 1)].name

    def allowed(self, done: int) -> list[Survives]:
        """Returns the old and the new that a cut after step `done` may leave."""
        return [step.after for step in self.steps[done : done + 2]]


def artifacts(folder: Path, credentials: Path) -> dict[str, Artifact]:
    """Returns two models, a later one that is mostly the second, and an adapter of that."""
    key, chance = load_signing_key(credentials / "release.key"), random.Random(7)
    first, second = chance.randbytes(MODEL_BYTES), chance.randbytes(MODEL_BYTES)
    third = second[: MODEL_BYTES // 2] + b"changed" + second[MODEL_BYTES // 2 + 7 :]

    def artifact(name: str, files: dict[str, bytes], **fields: Any) -> Artifact:
        sources = folder / f"{name}-sources"
        for path, data in files.items():
            (sources / path).parent.mkdir(parents=True, exist_ok=True)
            (sources / path).write_bytes(data)
        paths = {path: sources / path for path in files}
        write_artifact(folder / name, paths, FIELDS | {"version": name} | fields, key)
        return open_artifact(folder / name)

    def model(name: str, weights: bytes, **fields: Any) -> Artifact:
        return artifact(name, {"engine/model.bin": weights, "engine/fake.json": b"{}"}, **fields)

    slots = {"modules": MODULES, "rank": 8}
    models = {"first": model("first", first), "second": model("second", second)}
    models["third"] = model("third", third, adapter_slots=slots)
    spec = {"base": models["third"].digest, "path": "adapter/a.onnx_adapter", "modules": MODULES, "rank": 4}
    models["adapter"] = artifact(
        "adapter", {"adapter/a.onnx_adapter": chance.randbytes(20_000)}, adapter=spec
    )
    return models


def live(
    board: ew.Board, credentials: Path, models: dict[str, Artifact], logged: Callable[[], int],
    say: Callable[[str], None] = lambda text: None,
) -> list[Step]:  # fmt: skip
    """Goes through everything that changes a board's disk; returns the steps as they were answered."""
    steps = [Step("start", logged(), Survives(None, 0))]
    keys = ew.Credentials(credentials)

    def did(name: str, **changes: Any) -> None:
        after = Survives(**(vars(steps[-1].after) | changes))
        steps.append(Step(name, logged(), after))
        say(name)

    board.push(models["first"])
    did("push", active=models["first"].digest)
    board.push(models["second"])
    did("activation with a previous release", active=models["second"].digest)
    board.rollback()
    did("roll-back", active=models["first"].digest)
    board.push(models["third"], delta_from=[models["second"].folder])
    did("delta", active=models["third"].digest)
    board.push(models["adapter"])
    did("adapter switch", active=models["adapter"].digest)
    board.delete(models["second"].digest)
    board.gc()
    did("garbage collection")
    keys.renew(365)
    told = keys.tell([board.address])
    if told.failed:
        raise NeedError(f"the board did not take the trust document: {told.failed[0].error}")
    did("trust update", trust_version=keys.trust().content.version)
    board.push(models["first"])
    did("back to an earlier release", active=models["first"].digest)
    return steps


def wait_for_rest(board: ew.Board) -> None:
    """Waits until the board has finished by itself what the cut left under way."""
    until = time.monotonic() + 60
    while board.status().phase not in ("idle", "staged", "safe"):
        if time.monotonic() > until:
            raise NeedError("the board does not come to rest after the cut")
        time.sleep(0.1)


@contextlib.contextmanager
def agent(store: Path, credentials: Path) -> Iterator[ew.Board]:
    """Runs the agent on `store` and yields the host's view of it."""
    files = {
        "--tls-cert": "agent.pem",
        "--tls-key": "agent.key",
        "--tls-ca": "ca.pem",
        "--trust": "release.pub",
    }
    command = [
        str(SOURCES / ".venv/bin/edgewright-agent"), "serve", "--profile", "this-host", "--store", str(store),
        "--listen", "127.0.0.1:0", "--probation", "0", "--store-reserve", "1MiB",
        *(word for option, name in files.items() for word in (option, str(credentials / name))),
    ]  # fmt: skip
    environment = os.environ | {"EDGEWRIGHT_FAKE_ENGINE": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            if not words:
                raise NeedError("the agent did not start")
            with ew.Board(words[-1], credentials=credentials) as board:
                yield board
        finally:
            process.terminate()
            process.wait(60)
