"""A candidate answers one chat before it is kept: a template that can't be rendered is found on trial."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgewright_agent.deployment.probes import (
    ProbeResult,
    TrialConditions,
    has_chat_template,
    run_probes,
)
from edgewright_agent.store import StagedRelease
from tests.support.artifacts import make_artifact
from tests.support.engine_releases import Release

GOOD = "{% for message in messages %}{{ message.content }}{% endfor %}"
BAD = {
    "division by zero": "{{ 1 / 0 }}",
    "recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "include": "{% include '/etc/passwd' %}{% for message in messages %}{{ message.content }}{% endfor %}",
    "no end": "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}",
    "too long": "{{ 'x' * 1000000000000 }}",
    "no syntax": "{% for %}",
    "nothing": "{# a prompt without a token #}",
}


async def probed(tiny: Release, folder: Path, template: str) -> dict[str, ProbeResult]:
    shutil.copytree(tiny.tree, folder / "release/tree")
    (folder / "release/tree/tokenizer/chat_template.jinja").write_text(template, encoding="utf-8")
    staged = StagedRelease("release", make_artifact(engine={"kind": tiny.kind}).manifest, folder / "release")
    release = replace(tiny, tree=folder / "release/tree", runtime_dir=folder / "run")
    async with release.running() as engine:
        probes = await run_probes(engine, staged, TrialConditions(2**40))
    return {probe.name: probe for probe in probes}


async def test_a_chat_template_that_renders_passes(tiny_onnx: Release, tmp_path: Path) -> None:
    probes = await probed(tiny_onnx, tmp_path, GOOD)
    assert probes["chat"].passed
    assert probes["chat"].required
    assert "a chat was answered" in probes["chat"].detail


@pytest.mark.parametrize("template", BAD.values(), ids=BAD)
async def test_a_chat_template_that_can_not_be_rendered_fails(
    tiny_onnx: Release, tmp_path: Path, template: str
) -> None:
    probes = await probed(tiny_onnx, tmp_path, template)
    assert not probes["chat"].passed, probes["chat"].detail
    assert "latency" not in probes  # nothing else is tried


def test_a_base_model_has_no_template_and_is_not_asked(tmp_path: Path) -> None:
    assert not has_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": null}')
    assert not has_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert has_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "default", "template": "x"}]}'
    )
    assert has_chat_template(tmp_path)
