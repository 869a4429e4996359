"""Troubleshooting quotes sentences that the code can say."""

from __future__ import annotations

import re

import error_index
import pytest

from tests.support.markdown import ROOT

HEADINGS = re.findall(
    r"^### `(.*)`$", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.fixture(scope="module")
def sentences() -> set[str]:
    return {flat(text) for text in error_index.strings()}


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_code_says_what_troubleshooting_quotes(heading: str, sentences: set[str]) -> None:
    quoted = flat(heading)
    assert any(quoted in sentence for sentence in sentences), f"no sentence of the code has {heading!r}"


def test_the_index_of_errors_holds_sentences_of_every_exit_code() -> None:
    codes = {sentence.exit_code for sentence in error_index.error_sentences()}
    assert codes == {1, 2, 3}
    assert len(error_index.error_sentences()) > 300


def flat(text: str) -> str:
    """Without what is filled in, its punctuation and its spaces, which differ in how they are written."""
    return re.sub(r"[…\s`.,;:(]+", " ", text).strip()
