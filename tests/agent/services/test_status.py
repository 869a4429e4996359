"""Every reason has a status code, and an error's status says all of it."""

from __future__ import annotations

import base64
import string
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2

from edgewright.errors import BusyError, EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright.v1.deployment_pb2 import StageRefusal
from edgewright_agent.services.translation.status import SENTENCE_BYTES_MAX, abort, code_of, status_of

PRINTABLE = (string.punctuation + " ").replace("%", "")


@pytest.mark.parametrize("reason", [value for value in Reason.values() if value])
def test_every_reason_has_a_code_of_its_own(reason: Reason.ValueType) -> None:
    as_input, as_outside = InputError("x", reason), OutsideError("x", reason)
    assert code_of(as_input) is code_of(as_outside)  # the reason decides, not the class


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x", Reason.REASON_UNSPECIFIED), grpc.StatusCode.INVALID_ARGUMENT),
        (RefusedError("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (OutsideError("x"), grpc.StatusCode.UNAVAILABLE),
        (BusyError("x"), grpc.StatusCode.ABORTED),
    ],
)
def test_an_error_without_a_reason_has_its_class_s_code(
    error: EdgewrightError, code: grpc.StatusCode
) -> None:
    assert code_of(error) is code


def test_a_status_names_the_reason_without_its_prefix() -> None:
    status = status_of(RefusedError("No such release.", Reason.REASON_RELEASE_UNKNOWN))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("RELEASE_UNKNOWN", "edgewright")
    assert status.message == "No such release."
    assert status.code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("letter", ["x", "%", "\n", "ä", "火"])
@pytest.mark.parametrize("count", [10, 700, 3000, 100_000])
def test_a_sentence_of_any_length_travels_in_the_trailers(letter: str, count: int) -> None:
    sentence = "The engine did not start: " + count * letter
    message = status_of(RefusedError(sentence)).message
    encoded = message.encode()
    assert len(quote(message, safe=PRINTABLE)) + len(base64.b64encode(encoded)) <= SENTENCE_BYTES_MAX
    assert message == sentence or (
        message.endswith(" […]") and sentence.startswith(message.removesuffix(" […]"))
    )
    assert (message == sentence) == (count == 10 or (count == 700 and letter == "x"))


async def test_a_long_sentence_never_costs_a_client_the_code_and_the_details() -> None:
    missing = [bytes(32) for _ in range(100)]  # as many as a refusal names
    error = RefusedError(40_000 * "ä", Reason.REASON_BLOB_MISSING)

    async def refuse(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await abort(context, error, StageRefusal(missing_blobs=missing))

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Refuse": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test/Refuse")
            for _ in range(50):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(b"")
                assert raised.value.code() is code_of(error)
    finally:
        await server.stop(None)
