"""The recipe's reference: every key of both kinds of recipe, with its type, default and the comment in the code."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from edgewright.validation import plain
from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
from edgewright_builder.recipe.model_recipe import Recipe

INTRODUCTION = """# Recipe keys

This page is made from the models that read a recipe, so it names every key there is.
A key that is not listed is refused with the nearest one's name. Paths in a recipe start at the recipe's own folder.
[Recipes](../recipes.md) tells what a recipe is for.
"""


def page() -> str:
    """The whole page in Markdown."""
    return "\n".join([
        INTRODUCTION,
        "## A model's recipe\n",
        *_sections(Recipe, ""),
        "## An adapter's recipe\n\nA recipe with a `base` makes an adapter.\n",
        *_sections(AdapterRecipe, ""),
    ])  # fmt: skip


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of a recipe, with a dot between the levels."""
    found = []
    for name, field in model.model_fields.items():
        inner = _section_of(field.annotation)
        found += keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def _sections(model: type[BaseModel], prefix: str) -> list[str]:
    rows, inner_sections = [], []
    meanings = comments_of(model)
    for name, field in model.model_fields.items():
        inner = _section_of(field.annotation)
        if inner:
            inner_sections += _sections(inner, f"{prefix}{name}.")
        else:
            kind = _kind(model, name)
            rows.append(
                f"| `{prefix}{name}` | {kind} | {_default(field)} | {_cell(meanings.get(name, ''))} |"
            )
    title = f"### `{prefix.rstrip('.')}`\n" if prefix else "### At the top\n"
    about = " ".join((inspect.getdoc(model) or "").split())
    table = ["| key | values | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else []
    return [title, f"{about}\n", *table, *inner_sections]


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a section, also where the section may be left out."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation.__name__ != "Bounds":
        return annotation
    inner = [_section_of(part) for part in getattr(annotation, "__args__", ())]
    return next((model for model in inner if model), None) if len(inner) <= 2 else None


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return f"`[{value.low:g}, {value.high:g}]`"  # type: ignore[attr-defined]
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _kind(model: type[BaseModel], name: str) -> str:
    """What may stand there, in words of JSON Schema."""
    schema = model.model_json_schema()
    return _cell(_of_schema(schema["properties"][name], schema.get("$defs", {})))


def _of_schema(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "`[low, high]`" if name == "Bounds" else _of_schema(definitions[name], definitions)
    if "anyOf" in schema:
        parts = [_of_schema(part, definitions) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(parts)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_of_schema(schema.get('items', {}), definitions) or 'values'}"
    kind = {"path": "path"}.get(schema.get("format", ""), schema.get("type", ""))
    return " ".join([{"string": "text", "boolean": "true or false"}.get(kind, kind), *_limits(schema)])


def _limits(schema: dict[str, Any]) -> list[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return [f"{sign} {plain(schema[key])}" for key, sign in signs.items() if key in schema]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def comments_of(model: type[BaseModel]) -> dict[str, str]:
    """The comment beside or above each field in the model's source."""
    lines = Path(inspect.getfile(model)).read_text(encoding="utf-8").splitlines()
    tree = ast.parse("\n".join(lines))
    body = next(
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == model.__name__
    )
    found = {}
    for field in body.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            beside = re.search(r"\s#\s(.*)$", lines[(field.end_lineno or field.lineno) - 1])
            above = re.match(r"\s*#\s(.*)$", lines[field.lineno - 2])
            found[field.target.id] = (beside or above or ["", ""])[1]
    return found


if __name__ == "__main__":
    print(page())
