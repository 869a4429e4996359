"""The command line of `scripts/virtual-board`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from virtual_board import arm, wheels
from virtual_board.agent import Agent
from virtual_board.build import build
from virtual_board.image import GUEST
from virtual_board.machine import Machine
from virtual_board.needs import NeedError, check_programs
from virtual_board.power_cuts.logged_disk import FILE_SYSTEMS
from virtual_board.power_cuts.on_board import study_on_board
from virtual_board.power_cuts.study import Count, Extent, study, table_of, write_counts
from virtual_board.sensors import trial as sensors
from virtual_board.sensors.device_trees import BOARDS, write_device_tree
from virtual_board.sensors.modules import build_modules
from virtual_board.settings import (
    BUDGET,
    CONTEXT_TOKENS,
    CPU,
    MODEL_SHAPES,
    PYTHON,
    SOURCES,
    SUITES,
    Parts,
    cache_folder,
)
from virtual_board.trial import BOARD, run_trial

DEMO = SOURCES / "demo-run"
ON_BOARD = ("f2fs",)  # which the kernel of a PC often lacks


def main() -> int:
    """Runs a command; returns its exit code: 0 done, 1 the answer is no, 3 something outside failed."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and the board goes too
    try:
        return int(options.run(options))
    except NeedError as error:
        print(error, file=sys.stderr)
        return 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/virtual-board", description="A board to try, without a board."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, about: str, run: object) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(run=run)
        return one

    _add_board_commands(command)
    _add_measurements(command)
    _add_package_commands(command)
    return parser


Command = Callable[[str, str, object], argparse.ArgumentParser]  # name, what it does, what runs it


def _add_board_commands(command: Command) -> None:
    trial = command("trial", "Boot a fresh board, install, push, use, break, reboot; print a table.", _trial)
    trial.add_argument("artifacts", nargs="*", type=Path, help="One or two artifacts. (default: the demo's)")
    _credentials(trial)
    boot = command("boot", "Boot a fresh board with the agent, and leave it running.", _boot)
    _credentials(boot)
    shell = command("shell", "Run a command on the board, or each line of the input.", _shell)
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    push = command("push", "Push an artifact to the board.", _push)
    push.add_argument("artifact", nargs="?", type=Path, default=DEMO / "build/artifact")
    _credentials(push)
    command("cut", "Pull the plug of the board, and boot it again.", _cut)
    command("off", "Shut the board down.", _off)


def _add_measurements(command: Command) -> None:
    power = command(
        "sensors", "Compare the agent's joules with known powers, by the kernel's own drivers.", _sensors
    )
    _several(power, "board", BOARDS)
    power.add_argument("--save", type=Path, metavar="DIR", help="Write the chips' files there.")
    fit = command(
        "memory", "Compare predicted memory with the peak on the board, the whole context used.", _memory
    )
    _several(fit, "shape", MODEL_SHAPES)
    fit.add_argument(
        "--context", type=_count, default=CONTEXT_TOKENS, help="In tokens. (default: %(default)s)"
    )
    fit.add_argument("--save", type=Path, metavar="JSON", help="Keep what was measured, and go on from it.")
    fit.add_argument("--layers", type=_count, help="Fewer than the model has: quicker.")
    fit.add_argument("--write", action="store_true", help="Ship these points as those of aarch64.")
    cut = command("cuts", "Find out what power cuts leave of a store on a real file system; as root.", _cuts)
    cut.add_argument(
        "--file-system",
        choices=sorted((*FILE_SYSTEMS, *ON_BOARD)),
        action="append",
        help="Repeat. (default: those of this kernel)",
    )
    cut.add_argument("--on-board-cuts", type=_count, default=40, help="How many cuts of f2fs, on the board.")
    cut.add_argument("--every", type=_count, default=1, help="Cut after each so-manieth flush.")
    cut.add_argument(
        "--resume-every", type=_count, default=100, help="Let an agent go on from each so-manieth cut."
    )
    cut.add_argument("--save", type=Path, metavar="CSV", help="Write the counts.")


def _add_package_commands(command: Command) -> None:
    wheel = command("wheels", "Check that every package has an aarch64 wheel.", _wheels)
    _several(wheel, "python", wheels.GLIBCS)
    user = command("arm", "Run Python on an emulated ARM processor, without a board.", _arm)
    _python(user)
    user.add_argument("cpu", choices=sorted(arm.FEATURES))
    user.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    golden = command(
        "golden", "Complete a release's golden prompt on an emulated ARM processor, in seconds.", _golden
    )
    golden.add_argument("artifact", nargs="?", type=Path, default=DEMO / "build/artifact")
    golden.add_argument("--cpu", default=CPU, choices=sorted(arm.FEATURES), help="(default: %(default)s)")
    _python(golden)


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number from 1 on")
    return int(word)


def _several(parser: argparse.ArgumentParser, name: str, known: Iterable[str]) -> None:
    """Adds an argument that names any of those known; all by default."""
    choices = list(known)

    def one(word: str) -> str:
        if word not in choices:
            raise argparse.ArgumentTypeError(f"{word!r} is not known; choose from {', '.join(choices)}")
        return word

    parser.add_argument(
        f"{name}s", nargs="*", default=choices, type=one, metavar=name.upper(), help=", ".join(choices)
    )


def _python(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--python", default=PYTHON, choices=list(SUITES), help="(default: %(default)s)")


def _credentials(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--credentials", type=Path, default=DEMO / "credentials")


def _board(parts: Parts | None = None) -> Machine:
    folder = cache_folder()
    return Machine(parts or Parts(folder), folder / "board")


def _fresh(credentials: Path, *, with_sensors: bool = False) -> tuple[Machine, Agent]:
    if not (credentials / "ca.pem").exists():
        raise NeedError(
            f"There are no credentials in {credentials}: run `make demo` first, or name --credentials DIR."
        )
    machine = _board(build(_say))
    machine.prepare()
    if with_sensors:
        machine.device_tree = machine.folder / "board.dtb"
        write_device_tree(BOARD, machine.device_tree)
    return machine, Agent(machine, credentials)


def _trial(options: argparse.Namespace) -> int:
    artifacts = options.artifacts or [DEMO / "build/artifact"]
    for artifact in artifacts:
        _check_artifact(artifact)
    sensors_are_built = any((cache_folder() / "sensors").glob("*.ko"))
    machine, agent = _fresh(options.credentials, with_sensors=sensors_are_built)
    if not sensors_are_built:
        _say("without joules: `scripts/virtual-board sensors` builds the drivers of power sensors")
    try:
        print(run_trial(machine, agent, artifacts, _say).markdown())
    finally:
        machine.cut()
    return 0


def _boot(options: argparse.Namespace) -> int:
    machine, agent = _fresh(options.credentials)
    try:
        _say(f"booted in {machine.boot():.0f} s")
        agent.set_up("this-host", f'"--budget {BUDGET}"')
        agent.wait()
    except BaseException:
        machine.cut()
        raise
    _say(f"the agent serves on {agent.address}; scripts/virtual-board off shuts the board down")
    return 0


def _shell(options: argparse.Namespace) -> int:
    machine = _board()
    code = 0
    for line in [" ".join(options.words)] if options.words else sys.stdin:
        reply = machine.run(line)
        print(reply.output, end="", flush=True)
        code = reply.code
    return code


def _push(options: argparse.Namespace) -> int:
    _check_artifact(options.artifact)
    done = Agent(_board(), options.credentials).attempt(
        "push", str(options.artifact), f"127.0.0.1:{_board().port}"
    )
    print(done.stdout + done.stderr, end="")
    return done.returncode


def _cut(options: argparse.Namespace) -> int:
    machine = _board()
    if not machine.is_running():
        raise NeedError("No board runs: `scripts/virtual-board boot` boots one.")
    machine.cut()
    _say(f"the plug is pulled; it is up again after {machine.boot():.0f} s")
    return 0


def _off(options: argparse.Namespace) -> int:
    _board().power_off()
    return 0


def _sensors(options: argparse.Namespace) -> int:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "sensors").exists():
        build(_say)
    build_modules(Parts(folder))
    parts = build(_say)
    results = {name: sensors.measure(parts, name, _say) for name in options.boards}
    rails = {name: sensors.comparisons(result) for name, result in results.items()}
    print("| board | rail | joules set | counted | error | at most | gaps | samples |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name, result in results.items():
        print(sensors.table(name, rails[name]))
        if options.save is not None:
            sensors.save_tree(result, options.save / f"{name}.tree")
    return int(any(abs(row.error) > sensors.ERROR_MAX for rows in rails.values() for row in rows.values()))


def _memory(options: argparse.Namespace) -> int:
    from virtual_board import memory

    fits = [] if options.save is None else memory.load(options.save)
    parts = build(_say)
    for shape in options.shapes:
        case = memory.case_of(shape, options.layers, options.context)
        if not any((fit.model, fit.configuration) == (case.model, case.configuration) for fit in fits):
            fits.append(memory.measure(parts, case, _say))
            if options.save is not None:
                memory.save(fits, options.save)
    if options.write:
        memory.ship(fits)
    print(memory.table_of(fits))
    return int(not all(fit.is_within() for fit in fits))


def _cuts(options: argparse.Namespace) -> int:
    extent = Extent(options.every, options.resume_every)
    names = options.file_system or list(FILE_SYSTEMS)
    counts: list[Count] = []
    for name in names:
        if name in ON_BOARD:
            check_programs(f"mkfs.{name}")
            counts += study_on_board(build(_say), name, options.on_board_cuts, _say)
        else:
            counts += study(name, extent, _say)
    print(table_of(counts))
    if options.save is not None:
        write_counts(counts, options.save)
    return int(any(count.lost for count in counts))


def _wheels(options: argparse.Namespace) -> int:
    wheel = wheels.build_wheel(SOURCES / "build" / "wheel")
    missing = {python: wheels.missing_wheels(python, wheel) for python in options.pythons}
    for python, why in missing.items():
        print(f"Python {python}: {why or 'every package has an aarch64 wheel'}")
    return int(any(missing.values()))


def _arm(options: argparse.Namespace) -> int:
    return arm.run_python(options.cpu, options.words, options.python)


def _golden(options: argparse.Namespace) -> int:
    _check_artifact(options.artifact)
    return arm.run_python(
        options.cpu, [str(GUEST / "golden_prompt.py"), str(options.artifact)], options.python
    )


def _check_artifact(artifact: Path) -> None:
    if not (artifact / "manifest.json").exists():
        raise NeedError(f"There is no artifact in {artifact}: run `make demo` first, or name one.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
