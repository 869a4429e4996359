"""MkDocs hooks: pages made from the code join the site, and links out of docs/ become names of files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file alone

import board_tables
import cli_reference
import error_index
import recipe_keys
import sdk_reference
import wire_contract

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "reference/sdk.md": sdk_reference.page,
        "reference/cli.md": cli_reference.page,
        "reference/wire.md": wire_contract.page,
        "reference/recipe.md": recipe_keys.page,
        "reference/errors.md": error_index.page,
        "reference/boards.md": board_tables.page,
    }
)
# The texts in the repository's root that the site shows as well.
ROOT_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "ARCHITECTURE.md": "architecture.md",
        "CHANGELOG.md": "changelog.md",
        "CONTRIBUTING.md": "contributing.md",
        "benchmarks/README.md": "benchmarks.md",
        "examples/README.md": "examples.md",
    }
)
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made from the code and the root's texts."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    for source, path in ROOT_TEXTS.items():
        text = (DOCS.parent / source).read_text(encoding="utf-8")
        files.append(File.generated(config, path, content=_moved(text, source, path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside docs/ become their names, as the site has no such pages."""
    folder = (DOCS / page.file.src_uri).parent
    return LINK.sub(lambda match: _link(match, folder), markdown)


def _link(match: re.Match[str], folder: Path) -> str:
    text, target, anchor = match[1], match[2], match[3] or ""
    if "://" in target or target.startswith("mailto:"):
        return match[0]
    relative = os.path.relpath(folder / target, DOCS.parent)
    if relative in ROOT_TEXTS:
        return f"[{text}]({os.path.relpath(DOCS / ROOT_TEXTS[relative], folder)}{anchor})"
    if relative.startswith("docs/") and not relative.endswith("/"):
        return match[0]
    name = f"`{relative}`"
    return name if text.strip("`") in relative else f"{text} ({name})"


def _moved(text: str, source: str, path: str) -> str:
    """A root's text with its links taken from where the site has it."""
    old, new = (DOCS.parent / source).parent, (DOCS / path).parent

    def link(match: re.Match[str]) -> str:
        if "://" in match[2]:
            return match[0]
        return f"[{match[1]}]({os.path.relpath(old / match[2], new)}{match[3] or ''})"

    return LINK.sub(link, text)
