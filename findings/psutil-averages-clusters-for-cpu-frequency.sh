#!/usr/bin/env bash
# psutil 7.2.2: cpu_freq() counts each cluster of a board's CPU once, and percpu=True gives an entry per cluster.
#
# Linux has one cpufreq policy for all cores that share a clock. On desktop x86 that is one per core; on most ARM boards
# it is one per cluster (policy0, policy6, …; related_cpus names its cores). psutil reads a policy as a core. So "the
# frequency of the CPU" is the mean of the clusters whatever their sizes, and zip(cpu_freq(percpu=True),
# cpu_percent(percpu=True)) pairs the second cluster's clock with the second core's load and drops the rest. The
# docstring says "a list of frequencies is returned for each CPU". An estimate of throttling or power from it is off.
# Read /sys/devices/system/cpu/cpufreq/policy*/ and its related_cpus instead.
#
# Seen on CPython 3.11, Linux x86-64, for a copy of the files of a board with 6 slow cores and 2 fast ones. Fails if
# that changes. Output seen:
#   8 cores: 6 at 600 MHz, 2 at 2200 MHz, 1000 MHz on average
#   cpu_freq(percpu=True): 2 entries: 600, 2200 MHz
#   cpu_freq(): 1400 MHz, the most 1900 MHz
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check psutil==7.2.2
cd "$folder"
venv/bin/python - <<'PY'
import glob
import os.path
from pathlib import Path
from unittest import mock

POLICIES = {"policy0": (range(6), 600, 1400), "policy6": (range(6, 8), 2200, 2400)}  # cores, MHz now, MHz at most
board, in_system, exists = Path("board").absolute(), glob.glob, os.path.exists
for name, (cores, now_mhz, most_mhz) in POLICIES.items():
    policy = board / "sys/devices/system/cpu/cpufreq" / name
    policy.mkdir(parents=True)
    texts = {
        "related_cpus": " ".join(map(str, cores)), "scaling_cur_freq": now_mhz * 1000, "scaling_max_freq": most_mhz * 1000,
        "scaling_min_freq": 400_000}
    for file, text in texts.items():
        (policy / file).write_text(f"{text}\n")
(board / "proc").mkdir()
(board / "proc/cpuinfo").write_text("".join(f"processor\t: {core}\n\n" for core in range(8)))  # ARM's has no clocks

# psutil chooses its way while it is imported: by policies, as on the board, also where this machine has none.
with mock.patch("os.path.exists", lambda path: True if "cpufreq/policy0" in str(path) else exists(path)):
    import psutil
psutil.PROCFS_PATH = str(board / "proc")
with mock.patch("glob.glob", lambda pattern: in_system(f"{board}{pattern}")):
    entries = sorted(psutil.cpu_freq(percpu=True))
    whole = psutil.cpu_freq()

clocks = [now_mhz for cores, now_mhz, _ in POLICIES.values() for _ in cores]
mean = sum(clocks) / len(clocks)
print(f"{len(clocks)} cores: 6 at 600 MHz, 2 at 2200 MHz, {mean:.0f} MHz on average")
print(f"cpu_freq(percpu=True): {len(entries)} entries: {', '.join(f'{entry.current:.0f}' for entry in entries)} MHz")
print(f"cpu_freq(): {whole.current:.0f} MHz, the most {whole.max:.0f} MHz")
assert mean == 1000
assert len(entries) == 2, "there is an entry per core now"
assert whole.current == 1400, "the clusters are weighted now"
PY
