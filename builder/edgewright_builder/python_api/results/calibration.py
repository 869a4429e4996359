"""What a board's own measurements did to predictions for it: the result of `Board.calibrate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgewright.sizes import format_bytes
from edgewright_builder.fit.speed import MeasuredDecode
from edgewright_builder.show.sheet import Lines, Sheet, shown


@shown
@dataclass(frozen=True)
class BoardCalibrated:
    """The measured peak beside the predicted one, and what predictions for the board rest on from now on."""

    board: str
    engine: str
    engine_version: str
    points: int  # measurements on that board
    file: Path
    predicted_peak_bytes: int
    error_fraction: float
    measured_peak_bytes: int
    measure: str  # "rss", "pss, peak rss" or "pss, peaks added"
    decode: MeasuredDecode | None

    def _sheet(self) -> Sheet:
        measured, predicted = self.measured_peak_bytes, self.predicted_peak_bytes
        lines = [
            f"{self.board}, {self.engine} {self.engine_version}: measured {format_bytes(measured)} "
            f"({self.measure}), predicted {format_bytes(predicted)} ({measured / predicted - 1:+.1%})."
        ]
        if self.decode is not None:
            lines.append(_decoded(self.decode))
        lines.append(
            f"Predictions for this board now rest on {self.points} measurement{'s' * (self.points > 1)} there, "
            f"± {self.error_fraction:.1%} ({self.file})."
        )
        return Sheet((Lines(lines),))


def _decoded(decode: MeasuredDecode) -> str:
    energy = (
        "its energy is not measured"
        if decode.joules_per_token is None
        else f"{decode.joules_per_token:.3g} J a token"
    )
    mode = f" at {decode.power_mode}" if decode.power_mode else ""
    return f"One request alone{mode}: {1 / decode.tpot_seconds:.1f} tokens/s, {energy}."
