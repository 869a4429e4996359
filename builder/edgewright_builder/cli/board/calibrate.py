"""`edgewright calibrate`: predictions for a board learn from what it has measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewright.sizes import format_bytes
from edgewright_builder.cli.connection import connect, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure

if TYPE_CHECKING:  # imported where it is used, as `--help` is to answer at once
    from edgewright_builder.device.measure import BoardPoint
    from edgewright_builder.fit.calibrate import BoardCalibration
    from edgewright_builder.fit.memory import Calibration
    from edgewright_builder.fit.speed import MeasuredDecode

AsServed = Annotated[
    bool,
    typer.Option("--as-served", help="Take the peak as it is: the board has served its longest requests."),
]


def calibrate(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    as_served: AsServed = False,
    as_json: AsJson = False,
) -> None:
    """Measure an engine's memory, speed and energy on a board, so that later predictions rest on them."""
    from edgewright_builder.device.measure import measured_point
    from edgewright_builder.fit.calibrate import check_point, refit, save_board
    from edgewright_builder.fit.memory import load_calibration

    async def work() -> BoardPoint:
        async with connect(host, credentials, insecure) as client:
            return await measured_point(client, fill=not as_served)

    found = run(work())
    shipped = load_calibration(found.engine)
    predicted_bytes = check_point(shipped, found.point).peak_bytes
    measured = _with_earlier_points(found)
    moved = refit(shipped, measured)
    file = save_board(measured)
    if as_json:
        typer.echo(json.dumps(_calibration_document(found, predicted_bytes, moved, file), indent=2))
    else:
        _print_calibration(found, predicted_bytes, moved, file)


def _with_earlier_points(found: BoardPoint) -> BoardCalibration:
    """What was measured on that board before, with this point; another version of the engine starts anew."""
    from edgewright_builder.fit.calibrate import BoardCalibration, load_board

    before = load_board(found.engine, found.board)
    if before is None or before.engine_version != found.engine_version:
        before = BoardCalibration(found.board, found.engine, found.engine_version, ())
    return before.with_point(found.point)


def _calibration_document(
    found: BoardPoint, predicted_bytes: int, moved: Calibration, file: Path
) -> dict[str, Any]:
    return {
        "board": found.board,
        "engine": found.engine,
        "points": moved.points,
        "file": str(file),
        "predicted_peak_bytes": predicted_bytes,
        "error_fraction": moved.error_fraction,
        "measured_peak_bytes": found.point.measured_peak_bytes,
        "decode": None if found.point.decode is None else asdict(found.point.decode),
    }


def _print_calibration(found: BoardPoint, predicted_bytes: int, moved: Calibration, file: Path) -> None:
    peak_bytes = found.point.measured_peak_bytes
    typer.echo(
        f"{found.board}, {found.engine} {found.engine_version}: measured {format_bytes(peak_bytes)} "
        f"({found.point.measure}), predicted {format_bytes(predicted_bytes)} "
        f"({peak_bytes / predicted_bytes - 1:+.1%})."
    )
    if found.point.decode is not None:
        typer.echo(_decoded(found.point.decode))
    typer.echo(
        f"Predictions for this board now rest on {moved.points} measurement{'s' * (moved.points > 1)} there, "
        f"± {moved.error_fraction:.1%} ({file})."
    )


def _decoded(decode: MeasuredDecode) -> str:
    energy = (
        "its energy is not measured"
        if decode.joules_per_token is None
        else f"{decode.joules_per_token:.3g} J a token"
    )
    mode = f" at {decode.power_mode}" if decode.power_mode else ""
    return f"One request alone{mode}: {1 / decode.tpot_seconds:.1f} tokens/s, {energy}."
