#!/usr/bin/env bash
# codecarbon 3.3.2: rapl_include_dram=True changes nothing; the memory's counter is never among those it reads.
#
# On x86 boards Linux has a counter of energy per package and, where the processor has it, one for the memory. Its
# powercap tree holds the latter inside the package, as intel-rapl:0:0 or :1 named "dram". The package's counter does not
# contain it. codecarbon's tracker documents rapl_include_dram as "CPU package + DRAM". But it takes a "dram" inside a
# package for a part of the package and skips it, against counting twice; what would be included is a "dram" beside the
# packages, and Linux makes none. No warning: the energy of a run is that without memory, asked for or not.
# Add up the files yourself: package-0 + dram.
#
# Seen on CPython 3.11, Linux x86-64, for a copy of the tree that Linux shows. Fails if that changes. Output seen:
#   the tree: intel-rapl:0 package-0, intel-rapl:0:0 core, intel-rapl:0:1 dram
#   rapl_include_dram=False reads package-0
#   rapl_include_dram=True reads package-0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check codecarbon==3.3.2
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
from pathlib import Path

from codecarbon.core.cpu import IntelRAPL

names = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram"}
tree = Path("powercap")
for zone, name in names.items():
    inside = [":".join(zone.split(":")[:depth]) for depth in range(1, zone.count(":") + 2)]
    place = Path(*inside)  # intel-rapl/intel-rapl:0/intel-rapl:0:1
    (tree / place).mkdir(parents=True)
    for file, text in {"name": name, "energy_uj": 1_000_000, "max_energy_range_uj": 262_143_328_850}.items():
        (tree / place / file).write_text(f"{text}\n")
    (tree / zone).symlink_to(place)  # as in /sys/class/powercap
print("the tree:", ", ".join(f"{zone} {name}" for zone, name in names.items()))
for include in (False, True):
    reader = IntelRAPL(rapl_dir=str(tree / "intel-rapl"), rapl_include_dram=include)
    read = [names[Path(file.path).parent.name] for file in reader._rapl_files]
    print(f"rapl_include_dram={include} reads {', '.join(read)}")
    assert read == ["package-0"], "the memory is included now"
PY
