#!/usr/bin/env bash
# jetson-stats 7.2.2: of two readings of the CPU's whole load one is the load since boot.
#
# jtop's cpu["total"] is made from the counters of /proc/stat: what they gained since the last reading. For each core
# the counters are kept for the next time; for the whole CPU it is the gain that is kept. So the next difference is that
# of the counters and a small gain: the shares since boot. The one after it is a difference to nearly the counters
# themselves and holds two intervals. On a board that was idle for an hour and is now busy, `total` tells 1%, 100%, 1%,
# 100%. An alarm or an autoscaler on it sees every other value, and a mean of it halves the load.
# The entries of cpu["cpu"] are right; take their mean.
#
# Seen on CPython 3.11, Linux x86-64, for a /proc/stat of one core that was 99% idle and is busy now. Fails if that
# changes. Output seen, the user's share in percent:
#   core 0: 1 100 100 100 100 100 100 100
#   total:  1 100 1 100 1 100 1 100
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jetson-stats==7.2.2
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
from pathlib import Path

from jtop.core.cpu import CPUService

IDLE_TICKS, BUSY_TICKS, STEP_TICKS = 990_000, 10_000, 100
service = CPUService()
service._proc_stat = str(Path("stat").absolute())  # in place of /proc/stat
cores, totals = [], []
for step in range(8):
    ticks = f"{BUSY_TICKS + step * STEP_TICKS} 0 0 {IDLE_TICKS} 0 0 0 0 0 0"
    Path("stat").write_text(f"cpu  {ticks}\ncpu0 {ticks}\nintr 0\n")
    total, (core, *_) = service.get_utilization([{}])
    cores.append(round(core["user"]))
    totals.append(round(total["user"]))
print("core 0:", *cores)
print("total: ", *totals)
assert cores == [1] + [100] * 7, "a core's load is another one"
assert totals == [1, 100] * 4, "the whole load is right now"
PY
