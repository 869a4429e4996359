"""The facts of the model a user names: a built-in one, a folder, a config.json, a GGUF file, or a hub id.

Nothing here reads weights, and only a hub id that is neither built in nor in the local cache needs a network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import InputError, OutsideError
from edgewright.folders import expanded
from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.fit.catalogue import BuiltinModel, find_builtin, nearest_names
from edgewright_builder.fit.configuration.gguf_header import config_from_gguf, read_gguf_header

FETCH_SECONDS = 5.0


@dataclass(frozen=True)
class ModelFacts:
    """A model and where its facts are from."""

    name: str
    architecture: Architecture
    source: str
    config: Mapping[str, Any]  # as config.json spells it


def find_model(text: str) -> ModelFacts:
    """Returns what `text` names. Raises InputError for what is no model, OutsideError where the hub can't be asked."""
    path = expanded(text)
    if path.exists():
        return _from_path(path)
    if (model := find_builtin(text)) is not None:
        return from_builtin(model)
    if path.suffix in {".gguf", ".json"} or text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise InputError(_unknown(text))
    if (cached := _cached_config(text)) is not None:
        return _from_file(cached, text, f"config.json of {text} in the hub's local cache")
    return _fetched_config(text)


def from_builtin(model: BuiltinModel) -> ModelFacts:
    """Returns the facts of a row of the table."""
    return ModelFacts(model.name, architecture_from_config(model.config), model.source, model.config)


def _from_path(path: Path) -> ModelFacts:
    if path.is_dir():
        if (path / "config.json").is_file():
            return _from_file(path / "config.json", path.resolve().name, str(path / "config.json"))
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return _from_gguf(files[0])
        raise InputError(
            f"{path} holds neither a config.json nor one GGUF file, so it is not a model folder."
        )
    if path.suffix == ".gguf":
        return _from_gguf(path)
    return _from_file(path, path.resolve().parent.name, str(path))


def _from_file(path: Path, name: str, source: str) -> ModelFacts:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; a model's config.json is expected.") from None
    return _from_text(text, name, source)


def _from_text(text: str, name: str, source: str) -> ModelFacts:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{source} is not readable as JSON; a model's config.json is expected.") from None
    if not isinstance(config, Mapping):
        raise InputError(f"{source} holds {type(config).__name__}, not the keys and values of a config.json.")
    return ModelFacts(name, architecture_from_config(config), source, config)


def _from_gguf(path: Path) -> ModelFacts:
    header = read_gguf_header(path)
    config = config_from_gguf(header, path)
    architecture = architecture_from_config(config)
    held = sum(_elements(shape) for name, shape in header.tensors.items() if not name.startswith("rope_"))
    if held != architecture.parameters:
        raise InputError(
            f"{path} is contradictory: its tensors hold {held} parameters, its metadata describes "
            f"{architecture.parameters}."
        )
    return ModelFacts(path.stem, architecture, f"header of {path}", config)


def _elements(shape: tuple[int, ...]) -> int:
    elements = 1
    for dimension in shape:
        elements *= dimension
    return elements


def hub_cache() -> Path:
    """Returns where the hub's client keeps what it has fetched (huggingface_hub's own rules)."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return expanded(cache)
    folder = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return expanded(folder) / "hub"


def _cached_config(hub_id: str) -> Path | None:
    """Returns the config.json of the newest snapshot in the local cache."""
    folder = hub_cache() / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    configs = sorted(folder.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    return configs[-1] if configs else None


def _fetched_config(hub_id: str) -> ModelFacts:
    """Asked once and not kept: a user who waits for an answer would rather hear that there is no network."""
    import httpx

    from edgewright_builder.model_server.proxies import usable_proxies

    address = f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/{hub_id}/resolve/main/config.json"
    token = os.environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with usable_proxies():
            response = httpx.get(address, headers=headers, timeout=FETCH_SECONDS, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OutsideError(
            f"{hub_id} is not built in{_suggestion(hub_id)}, and the hub could not be asked for its config.json "
            f"({type(error).__name__}); check the network or give a config.json."
        ) from None
    if response.status_code == 404:
        raise InputError(_unknown(hub_id))
    if response.status_code in (401, 403):
        raise OutsideError(
            f"The hub has no model {hub_id!r} that it would show: if it is gated, accept its licence there and set "
            f"HF_TOKEN{_suggestion(hub_id)}."
        )
    if response.status_code != 200:
        raise OutsideError(
            f"The hub answered {response.status_code} for {address}; try again or give a config.json."
        )
    return _from_text(response.text, hub_id, f"{address}")


def _suggestion(text: str) -> str:
    near: list[Any] = nearest_names(text)
    return f" (nearest: {', '.join(near)})" if near else ""


def _unknown(text: str) -> str:
    near = nearest_names(text)
    hint = (
        f"Did you mean {' or '.join(near)}?" if near else "`edgewright check --list` shows the built-in ones."
    )
    return (
        f"There is no model {text!r}: give a built-in name, a hub id OWNER/NAME, a folder, a config.json or a "
        f".gguf file. {hint}"
    )
