#!/usr/bin/env bash
# grpcio 1.85.3: grpc.min_reconnect_backoff_ms is also how long a connection may take to come about.
#
# Its documentation: "the minimum time between subsequent connection attempts, in ms". An attempt is given up once both
# this time and the present backoff have passed, TCP, TLS and the server's first HTTP/2 frame included; the default is
# 20 s. A client that sets the three backoffs to 100 ms, so as to be back at once when a board restarts, never reaches a
# board that answers after 300 ms (a slow link, TLS on a small core): it connects ten times a second and hangs up each
# time. The call ends as DEADLINE_EXCEEDED (or UNAVAILABLE without wait_for_ready), as if nobody were there.
# To reconnect fast: lower the initial and the maximal backoff, and leave the minimum above a handshake's time.
#
# Seen on CPython 3.11, Linux x86-64, for a server behind a relay that holds each packet for 0.3 s. Fails if that
# changes. Output seen (the number of connections varies):
#   initial and maximal backoff 100 ms: OK after 1 connection(s)
#   minimal, initial and maximal backoff 100 ms: DEADLINE_EXCEEDED after 55 connection(s)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check grpcio==1.85.3
GRPC_VERBOSITY=NONE "$folder/venv/bin/python" - <<'PY'
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

DELAY_SECONDS = 0.3
connections = []


class Answer(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"here")


def carry(source, target):
    """Passes bytes on, late, until one side closes."""
    try:
        while data := source.recv(65536):
            time.sleep(DELAY_SECONDS)
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def relay(listener, port):
    while True:
        client, _ = listener.accept()
        connections.append(client)
        server = socket.create_connection(("127.0.0.1", port))
        for pair in ((client, server), (server, client)):
            threading.Thread(target=carry, args=pair, daemon=True).start()


def outcome(address, names):
    """Calls once; returns the status."""
    options = [(f"grpc.{name}_reconnect_backoff_ms", 100) for name in names]
    connections.clear()
    with grpc.insecure_channel(address, options=[*options, ("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            channel.unary_unary("/service/Call")(b"", timeout=6, wait_for_ready=True)
            status = "OK"
        except grpc.RpcError as error:
            status = error.code().name
    print(f"{status} after {len(connections)} connection(s)", flush=True)
    return status


server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Answer(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=relay, args=(listener, port), daemon=True).start()
address = f"127.0.0.1:{listener.getsockname()[1]}"
print("initial and maximal backoff 100 ms: ", end="")
fast = outcome(address, ("initial", "max"))
print("minimal, initial and maximal backoff 100 ms: ", end="")
never = outcome(address, ("min", "initial", "max"))
assert fast == "OK", fast
assert never == "DEADLINE_EXCEEDED", "the minimal backoff no longer ends a connection attempt"
os._exit(0)  # the relay's threads never end
PY
