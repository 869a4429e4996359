#!/usr/bin/env bash
# device-smi 0.5.7: the utilization of the CPU is 0 %, also while each core computes.
#
# Device-SMI, which GPTQModel installs, reads CPUs and GPUs without other packages; its metrics() has "the latest
# utilization". For a CPU under Linux that is the gain of busy and idle time in /proc/stat. It reads the file twice with
# nothing in between. The kernel counts there in hundredths of a second, so the gain is nearly always nothing, which is
# told as 0. Should a tick fall between the two readings, it is 0 or 100. The memory of the same call is right.
# A dashboard or a log of a build thus shows a machine that does nothing. Take psutil.cpu_percent(interval=…).
#
# Seen on CPython 3.11, Linux x86-64. Fails if that changes. Output seen, with a process per core that only counts:
#   psutil: above 50 %
#   device-smi, 100 readings in 2 s: median 0 %
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check device-smi==0.5.7 psutil==7.2.2
cd "$folder"
cat > utilization.py <<'PY'
import multiprocessing
import statistics
import time

import psutil
from device_smi import Device


def count():
    while True:
        pass


if __name__ == "__main__":
    workers = [multiprocessing.Process(target=count, daemon=True) for _ in range(multiprocessing.cpu_count())]
    for worker in workers:
        worker.start()
    device, readings = Device("cpu"), []
    psutil.cpu_percent()
    for _ in range(100):
        readings.append(device.metrics().utilization)
        time.sleep(0.02)
    busy = psutil.cpu_percent()
    for worker in workers:
        worker.terminate()
    print("psutil:", "above 50 %" if busy > 50 else f"{busy} %")
    print(f"device-smi, {len(readings)} readings in 2 s: median {statistics.median(readings):.0f} %")
    assert busy > 50, "the cores are not busy"
    assert statistics.median(readings) == 0, "the utilization is read over a time now"
PY
venv/bin/python utilization.py
