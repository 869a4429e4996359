"""Device trees of a virtual board that calls itself a Jetson, with that board's power monitors on the stub's bus.

Names, addresses and shunts are those of NVIDIA's device trees (tegra234-p3767.dtsi, tegra234-p3701.dtsi, Thor's).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from virtual_board.needs import NeedError
from virtual_board.settings import CPU, CPUS, MEMORY_MIB


@dataclass(frozen=True)
class Ina3221:
    """A chip of three channels: label and shunt in µΩ of each; None: not connected."""

    address: int
    channels: tuple[tuple[str, int] | None, ...]


@dataclass(frozen=True)
class Board:
    """What a board is called, and its power monitors."""

    model: str
    compatible: tuple[str, ...]
    profile: str
    ina3221: tuple[Ina3221, ...]
    ina238: Mapping[int, int] = field(default_factory=dict)  # address → shunt in µΩ
    ina226: Mapping[int, tuple[str, int]] = field(default_factory=dict)  # address → label, shunt in µΩ

    @property
    def addresses(self) -> list[int]:
        """All chips, for i2c-stub."""
        return [*(chip.address for chip in self.ina3221), *self.ina238, *self.ina226]


BOARDS = {
    "orin-nano": Board(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
        "jetson-orin-nano-8gb",
        (Ina3221(0x40, (("VDD_IN", 5000), ("VDD_CPU_GPU_CV", 5000), ("VDD_SOC", 5000))),),
        ina226={0x45: ("CARRIER", 2000)},  # as carrier boards of others have one; NVIDIA's has none
    ),
    "agx-orin": Board(
        "NVIDIA Jetson AGX Orin Developer Kit",
        ("nvidia,p3737-0000+p3701-0000", "nvidia,p3701-0000", "nvidia,tegra234"),
        "jetson-agx-orin-64gb",
        (
            Ina3221(0x40, (("VDD_GPU_SOC", 2000), ("VDD_CPU_CV", 2000), ("VIN_SYS_5V0", 2000))),
            Ina3221(0x41, (None, ("VDDQ_VDD2_1V8AO", 2000), None)),
        ),
    ),
    "thor": Board(
        "NVIDIA Jetson AGX Thor Developer Kit",
        ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        "jetson-agx-thor-t5000",
        (Ina3221(0x40, (("VDD_GPU", 2000), ("VDD_CPU_SOC_MSS", 2000), ("VIN_SYS_5V0", 2000))),),
        {0x44: 2000},
    ),
}


def write_device_tree(board: Board, file: Path) -> None:
    """Writes QEMU's own tree with the board's name and chips."""
    raw = file.with_suffix(".qemu")
    machine = [
        "-M",
        f"virt,dumpdtb={raw}",
        "-cpu",
        CPU,
        "-m",
        str(MEMORY_MIB),
        "-smp",
        str(CPUS),
        "-nic",
        "none",
    ]
    _must(["qemu-system-aarch64", *machine])
    source = _must(["dtc", "-q", "-I", "dtb", "-O", "dts", str(raw)])
    _must(["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", str(file), "-"], source + overlay(board))


def overlay(board: Board) -> str:
    """Returns what is added to the tree, as source."""
    names = ", ".join(f'"{name}"' for name in (*board.compatible, "linux,dummy-virt"))
    chips = [_ina3221(chip) for chip in board.ina3221]
    chips += [
        f'power@{address:x} {{ compatible = "ti,ina238"; reg = <{address:#x}>; shunt-resistor = <{shunt}>; }};'
        for address, shunt in board.ina238.items()
    ]
    chips += [
        f'power@{address:x} {{ compatible = "ti,ina226"; reg = <{address:#x}>; label = "{label}"; '
        f"shunt-resistor = <{shunt}>; }};"
        for address, (label, shunt) in board.ina226.items()
    ]
    bus = "\n".join(["#address-cells = <1>;", "#size-cells = <0>;", *chips])
    return f'/ {{ model = "{board.model}"; compatible = {names};\ni2c-stub {{\n{bus}\n}}; }};\n'


def _ina3221(chip: Ina3221) -> str:
    inputs = []
    for number, channel in enumerate(chip.channels):
        what = 'status = "disabled";'
        if channel is not None:
            what = f'label = "{channel[0]}"; shunt-resistor-micro-ohms = <{channel[1]}>;'
        inputs.append(f"input@{number} {{ reg = <{number}>; {what} }};")
    cells = "#address-cells = <1>; #size-cells = <0>;"
    head = f'power@{chip.address:x} {{ compatible = "ti,ina3221"; reg = <{chip.address:#x}>; {cells}'
    return "\n".join([head, *inputs, "};"])


def _must(command: list[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NeedError(f"`{' '.join(command[:2])}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout
