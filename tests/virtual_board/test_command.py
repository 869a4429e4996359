"""A number that means nothing is refused before anything is built."""

from __future__ import annotations

import pytest

from virtual_board import command


@pytest.mark.parametrize(
    "words", ["memory --context 0", "memory --layers -1", "cuts --every 0", "cuts --every many"]
)
def test_a_number_below_one_is_refused_at_once(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["virtual-board", *words.split()])
    with pytest.raises(SystemExit) as exited:
        command.main()
    assert exited.value.code == 2
    assert f"{words.split()[-1]!r} is no whole number from 1 on" in capsys.readouterr().err
