"""The files that contributors meet first say what is true."""

from __future__ import annotations

import re

import tomllib
import yaml

from edgewright import __version__
from edgewright_builder.fit.catalogue import builtin_models
from edgewright_profiles import list_profiles
from tests.support.markdown import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_target_of_make_says_what_it_does() -> None:
    targets = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split()
    described = re.findall(r"^([a-z-]+):[^\n]*## ", MAKEFILE, re.MULTILINE)
    assert sorted(targets) == sorted(described)


def test_the_documentation_is_built_in_continuous_integration() -> None:
    commands = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert "make docs" in commands
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert any(step.get("run") == ".ci/run" for step in workflow["jobs"]["everything"]["steps"])


def test_templates_and_hooks_are_yaml() -> None:
    for path in [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]:
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path


def test_the_readme_counts_the_models_and_boards_that_ship() -> None:
    boards = [profile for profile in list_profiles() if profile != "this-host"]
    counted = f"{len(builtin_models())} models, {len(boards)} boards"
    assert counted in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version() -> None:
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    assert __version__ in sections[:2]  # above it there may be what comes next


def test_the_changelog_keeps_to_the_sections_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
