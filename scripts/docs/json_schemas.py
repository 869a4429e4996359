"""JSON Schemas of what the commands print with --json, made from the results' types; `make schemas` writes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel

from edgewright.trust.document import TrustDocument
from edgewright_agent.doctor.probe import BoardFacts
from edgewright_agent.doctor.report import DoctorDocument
from edgewright_builder.alignment.teacher_fit import TeacherCheck
from edgewright_builder.artifact.diff import Comparison
from edgewright_builder.cli.board.releases import ReleasesDocument
from edgewright_builder.cli.host.profiles import ProfilesDocument
from edgewright_builder.cli.output import VERSIONS
from edgewright_builder.device_client.verdict import DeploymentVerdict
from edgewright_builder.fleet.rollout import RolloutReport
from edgewright_builder.push.push import PushResult
from edgewright_builder.python_api import fitting
from edgewright_builder.python_api.results import (
    bench,
    board,
    calibration,
    evaluation,
    generation,
    storage,
    telemetry,
    trust,
)
from edgewright_profiles import DeviceProfile

FOLDER = Path(__file__).resolve().parent.parent.parent / "docs/reference/schemas"
DOCUMENTS: Mapping[str, Any] = MappingProxyType(
    {
        "bench": bench.BenchReport,
        "calibrate": calibration.BoardCalibrated,
        "check": fitting.Fit,
        "check-teacher": TeacherCheck,
        "diff": Comparison,
        "doctor": DoctorDocument,
        "eval": evaluation.Evaluation,
        "gc": storage.GarbageCollection,
        "generate": generation.Completion,
        "matrix": fitting.FitMatrix,
        "models": fitting.KnownModels,
        "plan": fitting.PlanChoice,
        "probe": BoardFacts,
        "profile": DeviceProfile,
        "profiles": ProfilesDocument,
        "push": PushResult,
        "releases": ReleasesDocument,
        "rollback": DeploymentVerdict,
        "rollout": RolloutReport,
        "scrub": storage.ScrubResult,
        "status": board.BoardStatus,
        "telemetry": telemetry.TelemetrySnapshot,
        "telemetry-record": telemetry.RecordedTelemetry,
        "trust": TrustDocument,
        "trust-update": trust.TrustUpdate,
    }
)
# The documents of each command with --json.
COMMANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "edgewright check": ("check", "matrix", "models"),
        "edgewright check-teacher": ("check-teacher",),
        "edgewright plan": ("plan",),
        "edgewright profiles list": ("profiles",),
        "edgewright profiles show": ("profile",),
        "edgewright push": ("push", "rollout"),
        "edgewright status": ("status",),
        "edgewright releases": ("releases",),
        "edgewright rollback": ("rollback",),
        "edgewright gc": ("gc",),
        "edgewright scrub": ("scrub",),
        "edgewright generate": ("generate",),
        "edgewright telemetry": ("telemetry", "telemetry-record"),
        "edgewright bench": ("bench",),
        "edgewright eval": ("eval",),
        "edgewright calibrate": ("calibrate",),
        "edgewright diff": ("diff",),
        "edgewright keys trust": ("trust", "trust-update"),
        "edgewright-agent probe": ("probe",),
        "edgewright-agent doctor": ("doctor",),
    }
)
PLAIN: Mapping[Any, Mapping[str, Any]] = MappingProxyType(
    {
        str: {"type": "string"},
        Path: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        float: {"type": ["number", "null"]},  # NaN and infinity are printed as null
        NoneType: {"type": "null"},
        Any: {},
    }
)
CHANGED = (
    "{name} has other fields than its checked-in schema. Scripts rely on a version's fields: give the document the "
    "next version (VERSIONS in cli/output.py), then run `make schemas`; the earlier version's file stays."
)


def name_of(document: str) -> str:
    """Returns a document's full name, such as `edgewright.status.v1`."""
    if document == "profile":  # a profile's file says its version in `schema_version`
        return str(DeviceProfile.model_fields["schema_version"].default)
    return f"edgewright.{document}.v{VERSIONS.get(document, 1)}"


def schema_of(document: str) -> dict[str, Any]:
    """Returns the JSON Schema of a document; no field is optional and none may be added."""
    kind, definitions = DOCUMENTS[document], dict[str, Any]()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        body = kind.model_json_schema(mode="serialization")
    else:
        body = _object(kind, definitions)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name_of(document)}
    if document != "profile":
        body["properties"] = {"schema": {"const": name_of(document)}, **body["properties"]}
    body["required"] = list(body["properties"])
    body["additionalProperties"] = False
    return {**body, **head, **({"$defs": definitions} if definitions else {})}


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    own = getattr(kind, "_document", None)
    if own is not None:
        kind = get_type_hints(own)["return"]
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)] if is_dataclass(kind) else list(hints)
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip().split("\n")[0],
        "properties": {name: _schema(hints[name], definitions) for name in names},
        "required": names,
        "additionalProperties": False,
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind in PLAIN:
        return dict(PLAIN[kind])
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(each, definitions) for each in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    return _named(kind, definitions)


def _named(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    own = getattr(kind, "_document", None)
    if own is not None and not (
        is_dataclass(printed := get_type_hints(own)["return"]) or is_typeddict(printed)
    ):
        return _schema(printed, definitions)
    assert is_dataclass(kind) or is_typeddict(kind), f"there is no JSON Schema for {kind}"
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # before its fields: it may hold another of its kind
        definitions[kind.__name__] = _object(kind, definitions)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def without_words(schema: Any) -> Any:
    """Returns a schema without its descriptions, which may change within a version."""
    if isinstance(schema, Mapping):
        kept = {
            key: value for key, value in schema.items() if key != "description" or not isinstance(value, str)
        }
        return {key: without_words(value) for key, value in kept.items()}
    return [without_words(value) for value in schema] if isinstance(schema, list) else schema


def main() -> None:
    """Writes the schemas; refuses to change a version's fields."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for document in DOCUMENTS:
        path, schema = FOLDER / f"{name_of(document)}.json", schema_of(document)
        if path.exists() and without_words(json.loads(path.read_text(encoding="utf-8"))) != without_words(
            schema
        ):
            sys.exit(CHANGED.format(name=name_of(document)))
        path.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
