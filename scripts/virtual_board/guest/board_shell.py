"""Runs on the board: carries out the commands that come through its virtio port, one JSON line each."""

import json
import os
import subprocess
import time

PORT = "/dev/virtio-ports/shell"

while not os.path.exists(PORT):  # noqa: PTH110 - pathlib costs a second of start here
    time.sleep(0.1)
port = os.open(PORT, os.O_RDWR)
pending = b""
while True:
    part = os.read(port, 65536)
    if not part:  # nobody listens on the host
        time.sleep(0.1)
        continue
    pending += part
    *lines, pending = pending.split(b"\n")
    for line in lines:
        try:
            asked = json.loads(line)
        except ValueError:
            continue  # what an earlier host left half sent
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", asked["command"]],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=asked["seconds"],
            )
            code, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as error:
            code, output = 124, error.stdout or b""
        answer = {"id": asked["id"], "code": code, "output": output.decode(errors="replace")}
        data = json.dumps(answer).encode() + b"\n"
        while data:
            data = data[os.write(port, data) :]
