#!/usr/bin/env bash
# zeus 0.16.0: on a Jetson Orin Nano or NX the energy of the GPU is cpu_energy_mj, and the GPU has none.
#
# Zeus measures a Jetson by its INA3221 and has cpu_energy_mj, gpu_energy_mj and total_energy_mj, "energy measurements for
# Jetson subsystems". It sorts the rails by their names: one with "cpu" in it is the CPU's, else one with "gpu" is the
# GPU's, else "system", "total" or "_in" is the total. An Orin Nano, Orin NX or Xavier NX has a single rail for CPU, GPU and
# accelerators, VDD_CPU_GPU_CV. So what a model's layers take on the GPU is counted as the CPU's, and gpu_energy_mj is
# None. On an AGX Orin VDD_CPU_CV is the CPU's, though it feeds the accelerators too, and VDD_GPU_SOC is the GPU's, though
# it feeds the rest of the SoC; VIN_SYS_5V0 matches nothing, and there is no total, which would be the sum of the three. No
# warning. A joule per token by processor is wrong by what the other one took. Read the rails by their own names.
#
# Seen on CPython 3.11, Linux x86-64, for copies of the boards' files with a power per rail. Fails if that changes. Output:
#   Orin Nano: VDD_IN 9000 mW, VDD_CPU_GPU_CV 5000 mW, VDD_SOC 1500 mW
#   cpu_power_mw is that of VDD_CPU_GPU_CV, total_power_mw is that of VDD_IN
#   AGX Orin: VDD_GPU_SOC 14000 mW, VDD_CPU_CV 4000 mW, VIN_SYS_5V0 6000 mW
#   cpu_power_mw is that of VDD_CPU_CV, gpu_power_mw is that of VDD_GPU_SOC
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Alone: what else zeus depends on (pandas, scikit-learn, …) has no part in reading a board.
"$folder/venv/bin/pip" install -q --disable-pip-version-check httpx==0.28.1 nvidia-ml-py==13.590.48 pydantic==2.14.4
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps zeus==0.16.0
cd "$folder"
venv/bin/python - > seen 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
from pathlib import Path
from unittest import mock

from zeus.device.soc import jetson

VOLTS = 5
BOARDS = {  # rail names as in the Jetson Linux Developer Guide
    "Orin Nano": {"VDD_IN": 9000, "VDD_CPU_GPU_CV": 5000, "VDD_SOC": 1500},
    "AGX Orin": {"VDD_GPU_SOC": 14000, "VDD_CPU_CV": 4000, "VIN_SYS_5V0": 6000},
}


def metrics(board):
    """What zeus reads of a board whose files lie in a folder."""

    def inside(path):
        return board / path.lstrip("/") if isinstance(path, str) else path

    with mock.patch.object(jetson, "Path", inside):
        return jetson.Jetson._discover_available_metrics(None)


for name, rails in BOARDS.items():
    board = Path(name).absolute()
    sensor = board / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    sensor.mkdir(parents=True)
    for channel, (rail, milliwatts) in enumerate(rails.items(), 1):
        (sensor / f"in{channel}_label").write_text(f"{rail}\n")
        (sensor / f"in{channel}_input").write_text(f"{VOLTS * 1000}\n")
        (sensor / f"curr{channel}_input").write_text(f"{milliwatts // VOLTS}\n")
    print(f"{name}:", ", ".join(f"{rail} {milliwatts} mW" for rail, milliwatts in rails.items()))
    rail_of = {milliwatts: rail for rail, milliwatts in rails.items()}
    read = {metric: rail_of[way.measure_power()] for metric, way in metrics(board).items()}
    print(", ".join(f"{metric} is that of {rail}" for metric, rail in sorted(read.items())))
PY
cat seen
cat > expected <<'TEXT'
Orin Nano: VDD_IN 9000 mW, VDD_CPU_GPU_CV 5000 mW, VDD_SOC 1500 mW
cpu_power_mw is that of VDD_CPU_GPU_CV, total_power_mw is that of VDD_IN
AGX Orin: VDD_GPU_SOC 14000 mW, VDD_CPU_CV 4000 mW, VIN_SYS_5V0 6000 mW
cpu_power_mw is that of VDD_CPU_CV, gpu_power_mw is that of VDD_GPU_SOC
TEXT
cmp -s seen expected || { echo "changed: the lines above are not those seen" >&2; exit 1; }
