"""An endpoint's address and key are checked before anything is sent."""

from __future__ import annotations

import pytest

from edgewright.errors import InputError
from edgewright_builder.recipe.model_recipe import DataTeacher
from tests.support.endpoint_client import TEXT, ask
from tests.support.teacher_server import said, teacher_server


@pytest.mark.parametrize("endpoint", ["localhost:8000/v1", "ftp://host/v1", "http://", "http:///v1"])
def test_an_endpoint_that_is_no_address_is_refused_by_the_recipe(endpoint: str) -> None:
    with pytest.raises(ValueError, match="http://HOST"):
        DataTeacher(model="m", endpoint=endpoint)


def test_a_key_of_more_than_one_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with teacher_server(lambda _: said(TEXT)) as server:
        monkeypatch.setenv("TEACHER_KEY", "k1\n")
        assert ask(server, api_key_variable="TEACHER_KEY")[0].text == TEXT
        monkeypatch.setenv("TEACHER_KEY", "k1\nk2")
        with pytest.raises(InputError, match="TEACHER_KEY"):
            ask(server, api_key_variable="TEACHER_KEY")
