"""The stand-in against the wheel itself, by hand: `pip download tensorrt-edgellm==0.11.0 --no-deps` for aarch64 first.

EDGEWRIGHT_EDGE_LLM_WHEEL names that file. Its Python is read and not run: it would need TensorRT.
"""

from __future__ import annotations

import ast
import os
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest

from edgewright_agent.engines.edge_llm.checkpoint import MODEL_TYPES
from edgewright_agent.engines.edge_llm.serve import COMMAND
from tests.support.edge_llm_stub.build import BuildOptions
from tests.support.edge_llm_stub.install import VERSION
from tests.support.edge_llm_stub.protocol import ChatCompletionRequest
from tests.support.edge_llm_stub.server import parser

WHEEL = os.environ.get("EDGEWRIGHT_EDGE_LLM_WHEEL", "")
pytestmark = pytest.mark.skipif(
    not WHEEL, reason="It needs the wheel of 447 MB, which EDGEWRIGHT_EDGE_LLM_WHEEL names."
)


def source(name: str) -> str:
    with zipfile.ZipFile(Path(WHEEL)) as wheel:
        return wheel.read(name).decode()


def fields_of(module: str, name: str) -> set[str]:
    """The annotated names in a class's body."""
    (body,) = [
        node.body for node in ast.parse(module).body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_it_is_the_version_that_was_read() -> None:
    assert f"-{VERSION}-" in Path(WHEEL).name
    points = source(f"tensorrt_edgellm-{VERSION}.dist-info/entry_points.txt")
    assert f"{COMMAND} = experimental.server.cli:main" in points
    assert "tensorrt-edgellm-build = experimental.builder.cli:main" in points


def test_a_chat_has_the_wheel_s_fields() -> None:
    protocol = source("experimental/server/api/protocol.py")
    assert set(ChatCompletionRequest.model_fields) == fields_of(protocol, "ChatCompletionRequest")


def test_every_flag_is_one_of_the_server_s() -> None:
    config = source("experimental/server/config.py")
    ours = {flag for action in parser()._actions for flag in action.option_strings} - {"-h", "--help"}
    assert {flag for flag in ours if f'"{flag}"' not in config} == set()


def test_an_engine_is_built_with_the_server_s_own_options() -> None:
    build = source("experimental/server/runtime/engine_build.py")
    assert {field.name for field in fields(BuildOptions)} <= fields_of(build, "BuildOptions")
    assert "def prepare_model(model: str," in build
    assert "cache_dir: str" in build


def test_every_family_that_a_recipe_may_ask_for_is_registered() -> None:
    registry = source("experimental/builder/models/registry.py")
    for model_type in MODEL_TYPES:
        assert f'"{model_type}": _set(Component.LLM)' in registry
