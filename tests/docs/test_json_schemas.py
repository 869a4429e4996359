"""The JSON Schemas in docs/reference/schemas are those of the code, and every command with --json has one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import cli_reference
import json_schemas
import pytest
from jsonschema import Draft202012Validator

from edgewright_builder.cli.output import VERSIONS
from tests.support.markdown import ROOT


@pytest.mark.parametrize("document", json_schemas.DOCUMENTS)
def test_a_checked_in_schema_is_what_the_code_derives(document: str) -> None:
    name, schema = json_schemas.name_of(document), json_schemas.schema_of(document)
    path = json_schemas.FOLDER / f"{name}.json"
    assert path.is_file(), f"{path.name} is missing: run `make schemas`."
    kept = json.loads(path.read_text(encoding="utf-8"))
    same_fields = json_schemas.without_words(kept) == json_schemas.without_words(schema)
    assert same_fields, json_schemas.CHANGED.format(name=name)
    assert kept == schema, f"{path.name} has other descriptions: run `make schemas`."
    Draft202012Validator.check_schema(kept)


def test_another_field_of_a_version_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_schemas, "FOLDER", tmp_path)
    json_schemas.main()
    path = tmp_path / "edgewright.status.v1.json"
    other = copy.deepcopy(json.loads(path.read_text(encoding="utf-8")))
    other["properties"]["phase"] = {"type": "integer"}
    path.write_text(json.dumps(other))
    with pytest.raises(SystemExit, match=r"edgewright\.status\.v1 has other fields.*next version"):
        json_schemas.main()
    assert json.loads(path.read_text()) == other


def test_every_command_with_json_has_a_schema() -> None:
    commands = {
        f"{program} {' '.join(words)}"
        for program, group in cli_reference.programs().items()
        for words, command in cli_reference.leaves(group)
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert commands == set(json_schemas.COMMANDS), (
        "name its documents in scripts/docs/json_schemas.py, COMMANDS"
    )
    documents = {name for names in json_schemas.COMMANDS.values() for name in names}
    assert documents == set(json_schemas.DOCUMENTS)
    assert set(VERSIONS) == documents - {"probe", "doctor", "profile"}, "what the host's commands emit"


def test_the_page_names_every_schema() -> None:
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    for command, documents in json_schemas.COMMANDS.items():
        assert f"`{command}`" in page
        for document in documents:
            name = json_schemas.name_of(document)
            assert f"[{name}](reference/schemas/{name}.json)" in page
