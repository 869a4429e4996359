"""Every reason has a status code, and an error's status says all of it."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from edgewright.errors import BusyError, EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.services.translation.status import code_of, status_of


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
