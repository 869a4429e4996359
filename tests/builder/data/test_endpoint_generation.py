"""Whole data from a T1 server: one that goes away, and one that is of no use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import InputError, OutsideError
from edgewright_builder.model_server.retries import RetryPolicy
from edgewright_builder.stages.data import generate_data
from tests.builder.data.test_generation import ScriptedTeacher, assignment, silent
from tests.support.endpoint_client import client, sentence
from tests.support.teacher_server import Reply, said, teacher_server


def writer(body: dict[str, Any]) -> Reply:
    """A server that does well at every step."""
    teacher = ScriptedTeacher()
    prompt = body["messages"][-1]["content"]
    return said("4" if "Score from 1 to 5" in prompt else teacher._text(prompt, body["seed"]))


def test_a_generation_whose_server_went_away_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted = assignment(pairs=12, batch_size=4)
    with teacher_server(writer) as server:
        whole = generate_data(client(server), wanted, tmp_path / "whole", silent)
        asked_for_all = len(server.bodies)
        server.answer = lambda body: writer(body) if len(server.bodies) < asked_for_all + 30 else Reply(503)
        with pytest.raises(OutsideError, match="--resume"):
            generate_data(client(server, retries=RetryPolicy(1, 0.01)), wanted, tmp_path / "again", silent)
        server.answer, server.bodies = writer, []
        again = generate_data(client(server), wanted, tmp_path / "again", silent)
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert 0 < len(server.bodies) < asked_for_all


@pytest.mark.parametrize("text", ["", "I can only talk about cars."])
def test_a_server_of_no_use_is_left_after_the_first_batch_and_its_text_is_shown(
    tmp_path: Path, text: str
) -> None:
    with (
        teacher_server(lambda _: said(text, finish_reason="content_filter")) as server,
        pytest.raises(InputError, match="left no pair") as raised,
    ):
        generate_data(client(server), assignment(pairs=60, batch_size=8), tmp_path, silent)
    assert (text or "content_filter") in sentence(raised.value)
    assert len(server.bodies) == 20 + 8  # the topics of 20 key phrases, one batch of questions
