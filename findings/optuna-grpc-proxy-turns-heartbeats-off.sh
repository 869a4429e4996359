#!/usr/bin/env bash
# Optuna behind its gRPC proxy records no heartbeat, though the storage that the proxy serves was told to.
#
# RDBStorage(heartbeat_interval=…) fails the trials of workers that died, and RetryHeartbeatStaleTrialCallback enqueues
# them again. GrpcStorageProxy is meant for the same storage and many workers, who may not reach the database. But it
# is no heartbeat storage: a worker behind it writes no heartbeat, and its Study neither looks for stale trials nor calls
# the callback. The server passes nothing on, and none of the three warns. A trial whose worker lost its power stays
# RUNNING for ever, also for workers that use the database directly; TPE with constant_liar goes on avoiding its place.
#
# Seen with optuna 5.0.0, SQLAlchemy 2.1.9, grpcio 1.85.3, protobuf 7.36.2, CPython 3.11, Linux x86-64. Fails if that
# changes. Output seen, each time for a worker that is killed after 2 heartbeats, and a second one that finishes:
#   direct: FAIL, COMPLETE
#   proxy: RUNNING, COMPLETE
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check optuna==5.0.0 SQLAlchemy==2.1.9 grpcio==1.85.3 protobuf==7.36.2
cd "$folder"
cat > study.py <<'PY'
import socket
import subprocess
import sys
import time
import warnings

import optuna
from optuna.storages import GrpcStorageProxy, RDBStorage, run_grpc_proxy_server

warnings.simplefilter("ignore")  # each of the classes is experimental
optuna.logging.set_verbosity(optuna.logging.ERROR)


def database():
    return RDBStorage("sqlite:///trials.db", heartbeat_interval=1, grace_period=2)


def storage_of(way, port):
    return database() if way == "direct" else GrpcStorageProxy(host="127.0.0.1", port=port)


def never_ends(trial):
    print("running", flush=True)
    time.sleep(600)


def states_after_a_death(way, port):
    storage = storage_of(way, port)
    if way == "proxy":
        storage.wait_server_ready(timeout=60)
    study = optuna.create_study(study_name=way, storage=storage)
    worker = subprocess.Popen([sys.executable, __file__, way, str(port)], stdout=subprocess.PIPE)
    worker.stdout.readline()
    time.sleep(2.5)
    worker.kill()
    worker.wait()
    time.sleep(5)  # more than the grace period
    study.optimize(lambda trial: 0.0, n_trials=1)
    return ", ".join(trial.state.name for trial in study.trials)


if len(sys.argv) == 3 and sys.argv[1] == "serve":
    run_grpc_proxy_server(database(), host="127.0.0.1", port=int(sys.argv[2]))
elif len(sys.argv) == 3:
    way, port = sys.argv[1], int(sys.argv[2])
    optuna.load_study(study_name=way, storage=storage_of(way, port)).optimize(never_ends, n_trials=1)
else:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    database()  # makes the tables
    server = subprocess.Popen([sys.executable, __file__, "serve", str(port)])
    try:
        states = {way: states_after_a_death(way, port) for way in ("direct", "proxy")}
    finally:
        server.kill()
    for way, text in states.items():
        print(f"{way}: {text}")
    assert states["direct"] == "FAIL, COMPLETE"
    assert states["proxy"] == "RUNNING, COMPLETE", "the proxy passes heartbeats on now"
PY
venv/bin/python study.py
