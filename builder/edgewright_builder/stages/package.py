"""The stage `package`: what was made, what it is and where it comes from, listed and signed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright.dsse import key_id
from edgewright_builder.artifact.artifact import MANIFEST_NAME, write_artifact
from edgewright_builder.local_engine.golden_prompt import PROMPTS, OpenEngine, golden_prompt
from edgewright_builder.stages.evaluate import accuracies

if TYPE_CHECKING:
    from edgewright_builder.run.distillation_inputs import Distillation
    from edgewright_builder.run.resumable_run import FinishedStage


@dataclass(frozen=True)
class Contents:
    """What an artifact is made of."""

    inputs: Mapping[str, Any]  # the digests of the stages whose products it holds
    files: Mapping[str, Path]  # path in the artifact → file
    fields: Mapping[str, Any]  # of `Manifest`, but `files`, `golden` and `accuracy`
    # The engine that serves, on these files, in each arithmetic that boards compute in; with a folder to write to.
    open_engines: Callable[[Path], Sequence[OpenEngine]]
    sizes: Callable[[Path], Mapping[str, float]]  # the written artifact → numbers for people


def run_package(
    job: Distillation,
    contents: Contents,
    data: FinishedStage,
    evaluated: FinishedStage,
    signing_key: Ed25519PrivateKey,
) -> FinishedStage:
    """Writes the signed artifact to the run's folder, or keeps it.

    Runs again where the artifact is gone or another key is to sign it.
    """
    artifact = job.run.folder / "artifact"
    inputs = {
        **contents.inputs,
        "evaluate": evaluated.output_digest,
        "fields": contents.fields,
        "key": key_id(signing_key.public_key()),
    }
    if not (artifact / MANIFEST_NAME).exists():
        (job.run.folder / "package" / "stage.json").unlink(missing_ok=True)

    def work(folder: Path) -> dict[str, Any]:
        prompts = _first_prompts(job, data)
        golden = golden_prompt(contents.open_engines(folder), prompts)
        measured = {"golden": golden, "accuracy": accuracies(evaluated)}
        digest = write_artifact(artifact, contents.files, {**contents.fields, **measured}, signing_key)
        return {"artifact": digest, **contents.sizes(artifact)}

    return job.run.stage("package", inputs, work, products=())


def _first_prompts(job: Distillation, data: FinishedStage) -> list[str]:
    """Returns the first questions of the data in the student's chat template."""
    from edgewright_builder.models.folder import load_tokenizer
    from edgewright_builder.train.samples import chat_texts

    tokenizer = load_tokenizer(job.student)
    with (data.folder / "data.jsonl").open(encoding="utf-8") as file:
        return [chat_texts(tokenizer, json.loads(line))[0] for line in islice(file, PROMPTS)]
