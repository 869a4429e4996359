"""An option that would have no effect is bad input: nobody is left to believe that it had one."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from edgewright.errors import InputError
from edgewright_builder.cli.main import app

HOST = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"push artifact {HOST} --select site=roof", "--select has no effect without --fleet or several"),
        (f"push artifact {HOST} --wave 1", "--wave has no effect without --fleet or several HOST:PORT"),
        (f"push artifact {HOST} --timeout 1800", "--timeout has no effect without"),  # also at its default
        (f"push artifact {HOST} --journal file", "--journal has no effect without"),
        (f"push artifact {HOST} --retry-failed", "--retry-failed has no effect without"),
        (f"push artifact {HOST} --no-delta --delta-from x", "--delta-from has no effect with --no-delta"),
        (f"push artifact {HOST} --no-activate --probation 9", "--probation has no effect with --no-activate"),
        ("check --all --device jetson-orin-nano-8gb", "--device has no effect with --all"),
        ("check --all --budget 1GiB", "--budget has no effect with --all"),
        ("check --all --concurrency 2", "--concurrency has no effect with --all"),
        ("check --all llama-3.2-3b", "MODEL has no effect with --all"),
        ("check --all --json --markdown", "--markdown has no effect with --json"),
        ("check --list --context 512", "--context has no effect with --list"),
        ("check llama-3.2-3b --device jetson-orin-nano-8gb --markdown", "no effect without --all"),
        (f"bench {HOST} --stage exported", "--stage has no effect without --local RUN"),
        ("bench --local run --insecure", "--insecure has no effect with --local"),
        ("bench saved.json --prompts 3", "--prompts has no effect with a saved result"),
        (f"telemetry {HOST} --interval 2", "--interval has no effect without --follow"),
        (f"telemetry {HOST} --recorded-after 0 --follow", "--follow has no effect with --recorded-after"),
        (f"telemetry {HOST} --follow --save file", "--save has no effect with --follow"),
        ("keys trust folder --insecure", "--insecure has no effect without HOST:PORT"),
        ("profiles detect --insecure", "--insecure has no effect without HOST:PORT"),
    ],
)
def test_an_option_without_effect_is_refused_with_what_it_needs(command: str, says: str) -> None:
    result = CliRunner().invoke(app, command.split())
    assert isinstance(result.exception, InputError)
    assert says in str(result.exception)


def test_what_the_environment_says_is_refused_by_nobody() -> None:
    result = CliRunner().invoke(app, ["bench", "none.json"], env={"EDGEWRIGHT_CREDENTIALS": "/nowhere"})
    assert "none.json" in str(result.exception)
