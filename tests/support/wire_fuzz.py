"""Bytes for every call of the wire contract: noise, messages with values at the edges, and mutations of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from edgewright.v1 import deployment_pb2, inference_pb2, telemetry_pb2, trust_pb2

EDGES = (0, 1, 2, 31, 32, 33, 255, 4 * 2**20, 4 * 2**20 + 1, 2**31 - 1, 2**31, 2**32 - 1)
MESSAGES_MAX = 4  # of a client stream


@dataclass(frozen=True)
class Method:
    """One call of one service."""

    path: str
    request: Descriptor
    streams_requests: bool
    streams_responses: bool


def methods() -> list[Method]:
    """Every call of every service."""
    modules = (deployment_pb2, inference_pb2, telemetry_pb2, trust_pb2)
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    return [
        Method(
            f"/{service.full_name}/{method.name}",
            method.input_type,
            method.client_streaming,
            method.server_streaming,
        )
        for service in services
        for method in service.methods
    ]


def bodies(method: Method, seeds: Sequence[Message]) -> st.SearchStrategy[list[bytes]]:
    """The messages of one call. `seeds` are well-formed ones, mutated where they are of the call's type."""
    ours = [seed.SerializeToString() for seed in seeds if seed.DESCRIPTOR is method.request]
    sound = st.one_of(_filled(method.request), *([st.sampled_from(ours)] if ours else []))
    one = st.one_of(st.binary(max_size=64), sound, st.tuples(sound, _mutations()).map(_mutated))
    return st.lists(one, max_size=MESSAGES_MAX) if method.streams_requests else one.map(lambda body: [body])


def _filled(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[bytes]:
    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        message = message_factory.GetMessageClass(descriptor)()
        _fill(message, draw, depth)
        return message.SerializeToString()

    return build()


def _fill(message: Message, draw: st.DrawFn, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is not None:
            if depth < 3:
                _fill_submessages(message, field, draw, depth)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_value(field), max_size=3)))
        else:
            setattr(message, field.name, draw(_value(field)))


def _fill_submessages(message: Message, field: Any, draw: st.DrawFn, depth: int) -> None:
    if not field.is_repeated:
        sub = getattr(message, field.name)
        sub.SetInParent()
        _fill(sub, draw, depth + 1)
        return
    for _ in range(draw(st.integers(0, 3))):
        _fill(getattr(message, field.name).add(), draw, depth + 1)


def _value(field: Any) -> st.SearchStrategy[Any]:
    kinds: dict[int, Callable[[], st.SearchStrategy[Any]]] = {
        FieldDescriptor.CPPTYPE_BOOL: st.booleans,
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats,
        FieldDescriptor.CPPTYPE_ENUM: lambda: st.integers(0, 40),
        FieldDescriptor.CPPTYPE_UINT32: lambda: st.sampled_from(EDGES),
        FieldDescriptor.CPPTYPE_UINT64: lambda: st.sampled_from((*EDGES, 2**63, 2**64 - 1)),
    }
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return kinds[field.cpp_type]()
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(max_size=20)
    return st.one_of(st.binary(max_size=40), st.binary(min_size=32, max_size=32), st.just(b"\1" * 32))


Mutation = tuple[str, int, int]


def _mutations() -> st.SearchStrategy[list[Mutation]]:
    kind = st.sampled_from(("flip", "cut", "insert", "double"))
    return st.lists(st.tuples(kind, st.integers(0, 4096), st.integers(0, 255)), min_size=1, max_size=4)


def _mutated(of: tuple[bytes, list[Mutation]]) -> bytes:
    body, mutations = of
    data = bytearray(body)
    for kind, where, value in mutations:
        at = where % (len(data) + 1)
        if kind == "flip" and at < len(data):
            data[at] ^= value or 1
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data.insert(at, value)
        else:
            data += data[at:]
    return bytes(data[:65536])


def mutated_text(sound: bytes) -> st.SearchStrategy[bytes]:
    """A document with a few bytes wrong."""
    return _mutations().map(lambda mutations: _mutated((sound, mutations)))
