"""The pages that are made from the code hold what the code has."""

from __future__ import annotations

import board_tables
import cli_reference
import recipe_keys
import wire_contract

from edgewright.v1 import common_pb2, deployment_pb2
from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_profiles import list_profiles


def test_the_command_line_page_has_every_command_and_option() -> None:
    page = cli_reference.page()
    for program, group in cli_reference.programs().items():
        for words, command in cli_reference.leaves(group):
            assert f"### {program} {' '.join(words)}\n" in page
            options = [p for p in command.params if p.param_type_name == "option"]
            assert all(f"`{option.opts[0]}`" in page for option in options)


def test_the_recipe_page_has_every_key_of_both_kinds_and_says_what_each_is() -> None:
    page = recipe_keys.page()
    for key in [*recipe_keys.keys(Recipe), *recipe_keys.keys(AdapterRecipe)]:
        rows = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        assert rows, f"{key} is missing"
        assert all(row.split("|")[4].strip() for row in rows), f"{key} has no meaning"


def test_the_wire_page_has_every_call_message_and_reason() -> None:
    page = wire_contract.page()
    service = deployment_pb2.DESCRIPTOR.services_by_name["DeploymentService"]
    assert all(f"#### {method.name}\n" in page for method in service.methods)
    assert all(f"### {name}\n" in page for name in deployment_pb2.DESCRIPTOR.message_types_by_name)
    assert all(f"`{name}`" in page for name in list(common_pb2.Reason.keys()))


def test_the_page_of_boards_has_every_profile() -> None:
    page = board_tables.page()
    assert all(f"`{name}`" in page for name in list_profiles() if name != "this-host")


def test_every_option_and_argument_says_what_it_is_for() -> None:
    for program, group in cli_reference.programs().items():
        for words, command in cli_reference.leaves(group):
            silent = [parameter.opts[0] for parameter in command.params if not parameter.help]
            assert not silent, f"{program} {' '.join(words)} says nothing of {silent}"
