"""Refuses an artifact whose files make an engine open what the manifest does not list.

A signature covers the listed files. A file outside the artifact was never hashed, differs from board to board, and
may be code. So every file that an engine is led to has to be in the manifest, for every engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from edgewright.errors import EdgewrightError, RefusedError
from edgewright.manifest import File, Manifest
from edgewright.sizes import format_bytes
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment.contents.configuration import complaint, plain_path
from edgewright_agent.deployment.contents.gguf_model import complaint_of_gguf
from edgewright_agent.deployment.contents.onnx_model import NotOnnxError, named_files
from edgewright_agent.engines import format_of

CODE_SUFFIXES = {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib"}
# Files that torch unpickles, which runs what they say. ONNX Runtime reads no such file.
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"}
GGUF_NAME = "model.gguf"  # the one file that the engine's folder holds
VOCABULARIES = {"tokenizer.json", "vocab.json"}  # words, and megabytes of them; they lead nowhere
CONFIGURATION_BYTES_MAX = 8 * 2**20
ENGINE_CONFIGURATION = "genai_config.json"
WEIGHTS_INDEX = ".index.json"  # of a checkpoint in several files: which tensor is in which

PathOf = Callable[[File], Path]  # where a file of the manifest lies on this board


def check_contents(manifest: Manifest, path_of: PathOf) -> None:
    """Raises RefusedError (`CONTENT_REFUSED`) for what no engine may be given; reads no weights.

    Raises OSError if a file can't be read.
    """
    holds = format_of(manifest.engine.kind)
    for file in manifest.files:
        suffix = PurePosixPath(file.path).suffix.lower()
        if suffix in CODE_SUFFIXES:
            raise _refused(f"{file.path} is code")
        if suffix in PICKLE_SUFFIXES and holds == "checkpoint":
            raise _refused(f"{file.path} may be a pickle, which runs code when it is read; use safetensors")
        if suffix == ".json" and PurePosixPath(file.path).name not in VOCABULARIES:
            _check_configuration(manifest, file, path_of(file))
    if holds == "onnx" and manifest.adapter is None:
        _check_graphs(manifest, path_of)
    if holds == "gguf":
        _check_gguf(manifest, path_of)


def _check_gguf(manifest: Manifest, path_of: PathOf) -> None:
    folder = PurePosixPath(manifest.engine.folder)
    files = [file for file in manifest.files if PurePosixPath(file.path).is_relative_to(folder)]
    names = sorted(str(PurePosixPath(file.path).relative_to(folder)) for file in files)
    if names != [GGUF_NAME]:
        raise _refused(f"{folder} holds {', '.join(names)[:200] or 'nothing'}, expected {GGUF_NAME} alone")
    found = complaint_of_gguf(path_of(files[0]))
    if found is not None:
        raise _refused(f"{files[0].path} {found}")


def _check_configuration(manifest: Manifest, file: File, path: Path) -> None:
    if file.size_bytes > CONFIGURATION_BYTES_MAX:
        limit = format_bytes(CONFIGURATION_BYTES_MAX)
        raise _refused(
            f"{file.path} has {format_bytes(file.size_bytes)}; a configuration has {limit} at most"
        )
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return  # no engine reads it either
    except RecursionError:
        raise _refused(f"{file.path} is nested too deeply to be read") from None
    if file.path.endswith(WEIGHTS_INDEX) and isinstance(content, dict):
        weights = content.pop("weight_map", {})
        content["weights_file"] = list(weights.values()) if isinstance(weights, dict) else weights
    found = complaint(content, lambda name: _is_listed(manifest, file.path, name))
    if found is not None:
        raise _refused(f"{file.path} {found}")


def _check_graphs(manifest: Manifest, path_of: PathOf) -> None:
    files = {file.path: file for file in manifest.files}
    graphs = {path for path in files if path.endswith(".onnx")} | {_graph(manifest, files, path_of)}
    for name in sorted(graphs):
        if not name.endswith(".onnx"):
            raise _refused(f"{name} is to be run as a model; only .onnx files are")
        try:
            outside = sorted(
                each for each in named_files(path_of(files[name])) if not _is_listed(manifest, name, each)
            )
        except NotOnnxError as error:
            raise _refused(f"{name} is no ONNX model: {error}") from None
        if outside:
            raise _refused(
                f"{name} keeps tensors in {outside[0][:100]!r}, which is none of the artifact's files"
            )


def _graph(manifest: Manifest, files: dict[str, File], path_of: PathOf) -> str:
    """Returns the model that the engine's configuration names."""
    folder = PurePosixPath(manifest.engine.folder)
    configuration = files.get(str(folder / ENGINE_CONFIGURATION))
    if configuration is None:
        raise _refused(f"{folder / ENGINE_CONFIGURATION} is missing, so no engine knows what to run")
    try:
        named = json.loads(path_of(configuration).read_bytes())["model"]["decoder"]["filename"]
        plain = plain_path(named)
    except (ValueError, KeyError, TypeError):
        raise _refused(f"{configuration.path} names no model (model.decoder.filename)") from None
    path = str(folder / plain) if plain is not None else ""
    if path not in files:
        raise _refused(f"{configuration.path} names the model {named[:100]!r}, which is none of the files")
    return path


def _is_listed(manifest: Manifest, configuration: str, name: str) -> bool:
    """Whether `name`, relative to the folder of the file that names it, is a file of the artifact, or a folder."""
    plain = plain_path(name)
    if plain is None:
        return False
    path = str(PurePosixPath(configuration).parent / plain)
    return any(file.path == path or file.path.startswith(f"{path}/") for file in manifest.files)


def _refused(why: str) -> EdgewrightError:
    message = (
        f"The artifact can't be served: {why}. An engine opens only what the manifest lists; build it again."
    )
    return RefusedError(message, Reason.REASON_CONTENT_REFUSED)
