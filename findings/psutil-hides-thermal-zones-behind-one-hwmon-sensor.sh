#!/usr/bin/env bash
# psutil 7.2.2: sensors_temperatures() leaves out every thermal zone as soon as any hwmon chip has a temperature.
#
# On boards whose SoC temperatures are thermal zones only, as on Jetson (cpu-thermal, gpu-thermal, tj-thermal, …), the
# zones are read only where /sys/class/hwmon has no temperature at all. An NVMe drive, a network card or a fan
# controller brings one. So the same program on the same image shows the zones on one board, and on a board with an
# NVMe drive the drive alone: a watch on max(temperatures) sees 39 degrees while the SoC throttles. The documentation only
# says that {} is returned where sensors are not supported.
#
# Seen on CPython 3.11, Linux x86-64, for a copy of the files that such a board has. Fails if that changes. Output seen:
#   without an NVMe drive: {'cpu-thermal': 91.5, 'gpu-thermal': 88.0}
#   with an NVMe drive:    {'nvme': 38.85}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check psutil==7.2.2
cd "$folder"
venv/bin/python - <<'PY'
import glob
from pathlib import Path
from unittest import mock

import psutil

root = Path("board").absolute()
in_system = glob.glob


def write(folder, **files):
    folder = root / "sys/class" / folder
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")


def temperatures():
    with mock.patch("glob.glob", lambda pattern: in_system(f"{root}{pattern}")):
        return {name: chips[0].current for name, chips in sorted(psutil.sensors_temperatures().items())}


write("thermal/thermal_zone0", type="cpu-thermal", temp=91500)
write("thermal/thermal_zone1", type="gpu-thermal", temp=88000)
write("hwmon/hwmon0", name="ina3221", in1_input=4976, curr1_input=480)  # a monitor of voltages, no temperature
without = temperatures()
write("hwmon/hwmon1", name="nvme", temp1_input=38850)
with_drive = temperatures()
print("without an NVMe drive:", without)
print("with an NVMe drive:   ", with_drive)
assert without == {"cpu-thermal": 91.5, "gpu-thermal": 88.0}, without
assert with_drive == {"nvme": 38.85}, "the zones are shown beside hwmon now"
PY
