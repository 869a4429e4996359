#!/usr/bin/env bash
# jetson-stats 7.2.2: the average power of a rail, `avg`, is half the newest reading and half the former "average".
#
# jtop's documentation calls it the "rail power average", and tegrastats, which gave this number before release 4,
# averages since it was started. jtop's service computes (power + avg) // 2 at each reading, by default half a second
# apart. Half of `avg` is the last reading, and what was 10 readings ago weighs a thousandth: it is the power of the
# last seconds, whatever the run. An energy per answer from `avg` times the duration of a benchmark is wrong by what the
# load was last: read a moment after the benchmark's end, it is that of an idle board.
# Add up `power` over time instead.
#
# Seen on CPython 3.11, Linux x86-64, for a copy of the files of a board's power monitor (INA3221). Fails if that
# changes. Output seen:
#   90 readings of 15000 mW, then 10 of 5000 mW: 14000 mW on average
#   avg after them: 5009 mW
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jetson-stats==7.2.2
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
from pathlib import Path

from jtop.core.power import PowerService, find_all_i2c_power_monitor

BUSY_MILLIWATTS, IDLE_MILLIWATTS, MILLIVOLTS = 15000, 5000, 5000
files = Path("i2c/1-0040/hwmon/hwmon0")
files.mkdir(parents=True)
Path("i2c/1-0040/name").write_text("ina3221\n")
texts = {
    "in1_label": "VDD_IN", "in1_input": MILLIVOLTS, "curr1_input": 0, "curr1_max": 32760, "curr1_crit": 32760,
    "curr1_max_alarm": 0, "curr1_crit_alarm": 0}
for name, text in texts.items():
    (files / name).write_text(f"{text}\n")

service = PowerService()
service._power_sensor = find_all_i2c_power_monitor("i2c")  # it looks in /sys alone, and here is no board
readings = [BUSY_MILLIWATTS] * 90 + [IDLE_MILLIWATTS] * 10
for milliwatts in readings:
    (files / "curr1_input").write_text(f"{milliwatts * 1000 // MILLIVOLTS}\n")  # mA
    total = service.get_status()["tot"]
    assert total["power"] == milliwatts, total
mean = sum(readings) // len(readings)
print(f"90 readings of {BUSY_MILLIWATTS} mW, then 10 of {IDLE_MILLIWATTS} mW: {mean} mW on average")
print(f"avg after them: {total['avg']} mW")
assert abs(total["avg"] - IDLE_MILLIWATTS) < 20, "avg is another average now"
PY
