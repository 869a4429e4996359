"""What the documentation's commands find: keys, a built artifact, examples, and agents at the boards' names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import yaml
from typer.testing import CliRunner, Result

from edgewright_builder.cli.main import app
from edgewright_builder.keys.key_files import load_signing_key
from tests.support.agent_process import serving
from tests.support.built_artifacts import make_artifact
from tests.support.evaluated_run import write_evaluation
from tests.support.markdown import ROOT

HOST = "board.local"
FLEET_PAGE = ROOT / "docs/fleets.md"


class DocsWorld:
    """A folder to stand in, and the agents that stand for the boards of the documentation."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.agent_options: tuple[str, ...] = ()
        self._stack = stack
        self._agents: dict[str, str] = {}  # address by the name in the documentation
        run(["keys", "create", "keys", "--host", HOST])
        (folder / "examples").symlink_to(ROOT / "examples")
        for version in ("older", "run"):
            self._write_artifact(folder / version / "artifact", version)
        write_evaluation(folder / "run", ROOT / "examples" / "science_quiz.jsonl", "plain")

    def _write_artifact(self, folder: Path, version: str) -> None:
        make_artifact(
            folder,
            {"engine/model.bin": version.encode() * 4000},
            load_signing_key(self.folder / "keys/release.key"),
            version=version,
            device_profiles=["raspberry-pi-5-8gb"],
            limits={"context_tokens": 1024},
        )

    def address(self, name: str) -> str:
        """The address of the agent that is `name` here; it is started at the first call."""
        if name not in self._agents:
            files = {
                "tls-cert": "agent.pem",
                "tls-key": "agent.key",
                "tls-ca": "ca.pem",
                "trust": "release.pub",
            }
            options = [f"--{option}={self.folder / 'keys' / file}" for option, file in files.items()]
            options += ["--listen=127.0.0.1:0", "--probation=0.1", *self.agent_options]
            agent = serving(self.folder / f"store-{len(self._agents)}", *options)
            self._agents[name] = self._stack.enter_context(agent).address
        return self._agents[name]

    def serve_the_artifact(self) -> None:
        """Has the board serve what a page takes for granted, after an older release."""
        for version in ("older", "run"):
            done = run(["push", f"{version}/artifact", self.address(HOST), "--credentials", "keys"])
            assert done.exit_code == 0, done.exception

    def write_fleet(self, text: str) -> None:
        """The page's fleet.yaml, with the agents' addresses in the place of the boards'."""
        fleet = yaml.safe_load(text)
        devices = [device if isinstance(device, dict) else {"host": device} for device in fleet["devices"]]
        fleet["devices"] = [
            {"name": device["host"].partition(":")[0]} | device | {"host": self.here(device["host"])}
            for device in devices
        ]
        (self.folder / "fleet.yaml").write_text(yaml.safe_dump(fleet))

    def here(self, word: str) -> str:
        """A word of a command, with an agent of ours in the place of a board."""
        name, colon, port = word.partition(":")
        return self.address(name) if colon and port == "7443" and name.endswith(".local") else word


@contextlib.contextmanager
def docs_world(folder: Path) -> Iterator[DocsWorld]:
    """A new world in `folder`, which becomes the working folder; its agents end with it."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.ExitStack() as stack:
            yield DocsWorld(folder, stack)
    finally:
        os.chdir(before)


def run(arguments: list[str]) -> Result:
    """Runs `edgewright` with these arguments."""
    return CliRunner().invoke(app, arguments)
