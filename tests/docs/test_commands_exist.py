"""Every command that the documentation shows is one of ours, with options it takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import cli_reference
import pytest

from tests.support.markdown import ROOT, Block, blocks, commands, inline_commands, pages

SHELL = blocks("sh", "bash", "shell")


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    return cli_reference.programs()


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_in_a_block_takes_the_options_shown(block: Block, programs: dict[str, Any]) -> None:
    for words in commands(block):
        check(words, programs)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_in_a_sentence_takes_the_options_shown(page: Path, programs: dict[str, Any]) -> None:
    for span in inline_commands(page):
        if "…" not in span:
            check(shlex.split(span), programs, complete=False)


def test_the_check_notices_an_option_that_is_not_there(programs: dict[str, Any]) -> None:
    for wrong in ("edgewright push a b:1 --colour", "edgewright pusch a b:1", "make all-of-it"):
        with pytest.raises(AssertionError):
            check(wrong.split(), programs)


def test_the_readme_shows_commands() -> None:
    assert any(block.page == "README.md" and commands(block) for block in SHELL)


def check(words: list[str], programs: dict[str, Any], *, complete: bool = True) -> None:
    """Raises AssertionError unless this command line parses. `complete`: with all that it needs, too."""
    program, arguments = words[0], words[1:]
    if program == "make":
        check_make(arguments)
        return
    command = programs[program]
    while arguments and hasattr(command, "list_commands") and not arguments[0].startswith("-"):
        default = getattr(command, "default_command", None)
        name = default if default and arguments[0] not in command.list_commands(None) else arguments.pop(0)
        assert name in command.list_commands(None), f"{program} has no command {name}"
        command = command.get_command(None, name)
    check_options(" ".join(words), command, arguments)
    if complete and "--help" not in arguments:
        positional = [p for p in command.params if p.param_type_name == "argument" and p.required]
        assert len(plain(command, arguments)) >= len(positional), f"{' '.join(words)} lacks an argument"
        for option in command.params:
            if option.param_type_name == "option" and option.required and not option.envvar:
                assert any(spelling in arguments for spelling in option.opts), f"{words} lacks {option.opts}"


def check_options(line: str, command: Any, arguments: list[str]) -> None:
    known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {
        "--help"
    }
    for word in arguments:
        if re.match(r"--?[a-zA-Z]", word):
            assert word.split("=")[0] in known, f"`{line}`: there is no option {word}"
    argument_count = sum(1 for p in command.params if p.param_type_name == "argument")
    open_ended = any(p.param_type_name == "argument" and p.nargs == -1 for p in command.params)
    assert open_ended or len(plain(command, arguments)) <= argument_count, f"`{line}` has too many arguments"


def plain(command: Any, arguments: list[str]) -> list[str]:
    """The arguments that are neither options nor their values."""
    valued = {
        flag
        for option in command.params
        if option.param_type_name == "option" and not option.is_flag
        for flag in option.opts
    }
    rest, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word.startswith("-") and word != "-":
            skip = word in valued
        else:
            rest.append(word)
    return rest


def check_make(arguments: list[str]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))
    for word in arguments:
        assert "=" in word or word in targets, f"make has no target {word}"
