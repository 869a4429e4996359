"""What a prediction rests on, and where it leaves what was measured."""

from __future__ import annotations

from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Calibration, Configuration

BEYOND = 1.25  # this far past the measured range is called extrapolation


def caveats(
    calibration: Calibration, architecture: Architecture, configuration: Configuration
) -> tuple[str, ...]:
    """Sentences, most important first; none where the board itself was measured in this range."""
    sentences = []
    parameters = architecture.with_layers(configuration.layers).parameters
    if (most := calibration.largest_parameters) is not None and parameters > BEYOND * most:
        sentences.append(
            f"Extrapolated: {parameters / 1e6:,.0f} million parameters; "
            f"the largest model measured has {most / 1e6:,.0f}."
        )
    tokens = configuration.context_tokens
    if (longest := calibration.longest_context_tokens) is not None and tokens > BEYOND * longest:
        sentences.append(f"Extrapolated: {tokens:,} tokens of context; the longest measured is {longest:,}.")
    if not calibration.of_this_board:
        sentences.append(
            f"Measured on {calibration.machine}, not on this board: `edgewright calibrate HOST` mends that."
        )
    return tuple(sentences)
