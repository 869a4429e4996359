"""A proxy that the environment names and httpx can't use is one sentence, whatever was to be asked through it."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgewright as ew
from edgewright.errors import InputError
from edgewright_agent.mirror.http import MirrorError, MirrorLimits, open_client
from edgewright_builder.data.data_teacher import TeacherSampling
from edgewright_builder.data.served_teacher import EndpointClient
from edgewright_builder.models.sources import resolve_model

UNUSABLE = {
    "ALL_PROXY": "socks5h://127.0.0.1:9050",
    "HTTPS_PROXY": "ftp://127.0.0.1:21",
    "HTTP_PROXY": "http://[::1",
    "NO_PROXY": "fe80::/10",
}


@pytest.fixture(params=UNUSABLE)
def variable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in (*UNUSABLE, *map(str.lower, UNUSABLE)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(request.param, UNUSABLE[request.param])
    return str(request.param)


def test_a_data_teacher_is_not_asked_through_it(variable: str) -> None:
    chat = [{"role": "user", "content": "Why?"}]
    with pytest.raises(
        InputError, match=rf"{variable}.* can't be used \(.*\); correct the variable or unset it\.$"
    ):
        EndpointClient("http://localhost:1/v1", "t").generate(
            [chat], max_tokens=1, sampling=TeacherSampling(), seed=0
        )


@pytest.mark.usefixtures("variable")
def test_the_hub_is_not_asked_through_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="can't be used"):
        ew.check("no-such-owner/no-such-model", device="jetson-orin-nano-8gb")


@pytest.mark.usefixtures("variable")
def test_an_agent_says_that_no_mirror_can_be_asked() -> None:
    with pytest.raises(MirrorError, match="Correct them in the agent's environment"):
        open_client(MirrorLimits())


@pytest.mark.parametrize(
    "name", ["my org/model", "org/my model", "org/model:latest", "-org/model", "org/a..b"]
)
def test_what_the_hub_takes_for_no_name_is_refused_before_it_is_asked(name: str) -> None:
    with pytest.raises(InputError, match="is no hub id OWNER/NAME"):
        resolve_model(name)
