#!/usr/bin/env bash
# grpcio 1.85.3: a refusal with 8 to 16 KiB of details reaches the client, or becomes RESOURCE_EXHAUSTED, by chance.
#
# A server that refuses a call with the tail of an engine's log as details sends both in the trailing metadata. The
# client has two limits for it: up to 8 KiB pass, above 16 KiB none does, and in between each answer is dropped at
# random, the more often the longer it is. The call then ends with RESOURCE_EXHAUSTED, "received metadata size exceeds
# soft limit": another code than the server's, one that retry policies take for overload, and no reason. The server logs
# its own code. With a log that grows, a board's refusal can't be diagnosed every other time, and a test of it flakes.
# The header of gRPC's core says of grpc.max_metadata_size that "some random sample of requests between" the limits is
# rejected; that a server's reason is one of them surprises. Cut the details on the server to about 4 KiB (percent-encoding
# makes a byte that isn't ASCII three), or raise the limit on the client.
#
# Seen on CPython 3.11, Linux x86-64. Fails if that changes. Output seen (the numbers in the middle vary):
#   details of 4000 bytes: the server's code 200 times, RESOURCE_EXHAUSTED 0 times
#   details of 12000 bytes: the server's code 99 times, RESOURCE_EXHAUSTED 101 times
#   details of 17000 bytes: the server's code 0 times, RESOURCE_EXHAUSTED 200 times
#   details of 12000 bytes, grpc.max_metadata_size of 16384: the server's code 200 times, RESOURCE_EXHAUSTED 0 times
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check grpcio==1.85.3
GRPC_VERBOSITY=NONE "$folder/venv/bin/python" - <<'PY'
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc

CALLS = 200


class Refuses(grpc.GenericRpcHandler):
    """Refuses each call with as many bytes of details as the request says."""

    def service(self, details):
        def refuse(request, context):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "x" * int(request))

        return grpc.unary_unary_rpc_method_handler(refuse)


def refusals(details_bytes, **options):
    with grpc.insecure_channel(address, options=[(f"grpc.{name}", value) for name, value in options.items()]) as channel:
        load = channel.unary_unary("/board.Engine/Load")
        codes = Counter()
        for _ in range(CALLS):
            try:
                load(str(details_bytes).encode())
            except grpc.RpcError as error:
                codes[error.code()] += 1
    kept, dropped = codes[grpc.StatusCode.FAILED_PRECONDITION], codes[grpc.StatusCode.RESOURCE_EXHAUSTED]
    title = ", ".join([f"details of {details_bytes} bytes", *(f"grpc.{name} of {value}" for name, value in options.items())])
    print(f"{title}: the server's code {kept} times, RESOURCE_EXHAUSTED {dropped} times")
    assert kept + dropped == CALLS, codes
    return kept


server = grpc.server(ThreadPoolExecutor(1), handlers=[Refuses()])
address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
server.start()
short, middle, long = refusals(4000), refusals(12000), refusals(17000)
raised = refusals(12000, max_metadata_size=16384)
server.stop(None)
assert (short, long, raised) == (CALLS, 0, CALLS), "the limits are others now"
assert 0 < middle < CALLS, "chance plays no part any more"
PY
