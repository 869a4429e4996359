"""The wire contract's page: every call and message with the comments of the .proto files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

ROOT = Path(__file__).resolve().parent.parent.parent
# Field numbers of FileDescriptorProto, DescriptorProto and so on: a comment's path in a file is made of them.
MESSAGES, ENUMS, SERVICES, MEMBERS, SYNTAX = 4, 5, 6, 2, 12
Comments = dict[tuple[int, ...], str]

INTRODUCTION = """# Wire contract

This page is made from the comments in `protos/edgewright/v1/`. A host and a board that are of different releases talk
to each other as long as the package is `edgewright.v1`: fields are added and never renumbered.
"""


def page() -> str:
    """The whole page in Markdown."""
    return "\n".join([INTRODUCTION, *(_file(file) for file in _descriptors().file)])


def _descriptors() -> FileDescriptorSet:
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        command = [str(Path(sys.executable).with_name("buf")), "build", "-o", str(image)]
        subprocess.run(command, cwd=ROOT, check=True)
        return FileDescriptorSet.FromString(image.read_bytes())


def _file(file: FileDescriptorProto) -> str:
    comments = _comments(file)
    name = file.name.rpartition("/")[2]
    parts = [f"## {name}\n", f"{comments.get((SYNTAX,), '')}\n"]
    for index, service in enumerate(file.service):
        parts.append(f"### {service.name}\n")
        for number, method in enumerate(service.method):
            parts.append(_method(method, comments.get((SERVICES, index, MEMBERS, number), "")))
    for index, message in enumerate(file.message_type):
        parts.append(_message(message, (MESSAGES, index), comments))
    for index, enum in enumerate(file.enum_type):
        parts.append(_enum(enum, (ENUMS, index), comments))
    return "\n".join(parts)


def _comments(file: FileDescriptorProto) -> Comments:
    """Each comment by the path of what it is about."""
    return {
        tuple(place.path): _markdown(place.leading_comments or place.trailing_comments)
        for place in file.source_code_info.location
        if place.leading_comments or place.trailing_comments
    }


def _markdown(comment: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.splitlines())


def _method(method: MethodDescriptorProto, comment: str) -> str:
    request = f"{'stream ' if method.client_streaming else ''}{_short(method.input_type)}"
    response = f"{'stream ' if method.server_streaming else ''}{_short(method.output_type)}"
    return f"#### {method.name}\n\n`{method.name}({request}) → {response}`\n\n{comment}\n"


def _message(message: DescriptorProto, path: tuple[int, ...], comments: Comments) -> str:
    parts = [f"### {message.name}\n"]
    if path in comments:
        parts.append(f"{comments[path]}\n")
    if message.field:
        parts += ["| field | type | number | meaning |", "|---|---|--:|---|"]
        for index, field in enumerate(message.field):
            meaning = " ".join(comments.get((*path, MEMBERS, index), "").split()).replace("|", "\\|")
            parts.append(f"| `{field.name}` | {_type(field)} | {field.number} | {meaning} |")
        parts.append("")
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            parts.append(_message(nested, (*path, 3, index), comments))
    return "\n".join(parts)


def _enum(enum: EnumDescriptorProto, path: tuple[int, ...], comments: Comments) -> str:
    parts = [f"### {enum.name}\n"]
    if path in comments:
        parts.append(f"{comments[path]}\n")
    parts += ["| value | number | meaning |", "|---|--:|---|"]
    for index, value in enumerate(enum.value):
        meaning = " ".join(comments.get((*path, MEMBERS, index), "").split()).replace("|", "\\|")
        parts.append(f"| `{value.name}` | {value.number} | {meaning} |")
    return "\n".join([*parts, ""])


def _type(field: FieldDescriptorProto) -> str:
    kind = field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    return f"{repeated}{_short(kind)}"


def _short(name: str) -> str:
    return name.rpartition(".")[2]


if __name__ == "__main__":
    print(page())
