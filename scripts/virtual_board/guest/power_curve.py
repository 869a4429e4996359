"""Runs on the board: moves the registers of its power monitors through known powers while the agent's telemetry counts.

    python3 power_curve.py PROFILE SECONDS CHIPS-AS-JSON
    python3 power_curve.py hold WATTS CHIPS-AS-JSON

The second form sets each rail to one power and ends. In the first, one channel is switched off on the way, later the
drivers are unbound. Prints JSON: of each rail the powers that were set and when, its counter after each sample, and the
files of the chips. The host compares them.
"""

import ctypes
import fcntl
import json
import math
import os
import sys
import time
from pathlib import Path

I2C_SLAVE_FORCE, I2C_SMBUS, WORD_DATA = 0x0706, 0x0720, 3
SHUNT_UV, BUS_MV = 40, 8  # of one bit of an INA3221
POWER_UW = 2000  # of one bit of an INA238 with a shunt of 2 mΩ
STEP_SECONDS = 2.0
DRIVERS = Path("/sys/bus/i2c/drivers")


class Data(ctypes.Union):
    _fields_ = [("word", ctypes.c_uint16), ("block", ctypes.c_uint8 * 34)]


class Call(ctypes.Structure):
    _fields_ = [
        ("write", ctypes.c_uint8), ("command", ctypes.c_uint8), ("size", ctypes.c_uint32),
        ("data", ctypes.POINTER(Data)),
    ]  # fmt: skip


def set_word(bus, chip, register, value, swapped=True):
    """Writes a register; the chips send the high byte first, and SMBus the low one."""
    data = Data(word=(value >> 8 & 255) | (value & 255) << 8 if swapped else value)
    file = os.open(f"/dev/i2c-{bus}", os.O_RDWR)
    try:
        fcntl.ioctl(file, I2C_SLAVE_FORCE, chip)
        fcntl.ioctl(file, I2C_SMBUS, Call(0, register, WORD_DATA, ctypes.pointer(data)))
    finally:
        os.close(file)


def set_ina3221(bus, chip, channel, watts, shunt_uohm):
    """Sets a channel to 5 V and the nearest current; returns the watts that the registers now say."""
    steps = -1 if watts < 0 else round(watts / 5.0 * shunt_uohm / SHUNT_UV)
    set_word(bus, chip, 2 + 2 * channel, 5000 // BUS_MV << 3)
    set_word(bus, chip, 1 + 2 * channel, (steps << 3) & 0xFFF8)
    set_word(bus, chip, 0x0F, 1)
    return 5.0 * steps * SHUNT_UV / shunt_uohm


def set_ina226(bus, chip, watts, shunt_uohm):
    """Sets its power register; the driver calibrates a bit to 25 times that of the current."""
    bit_uw = 25 * (2_500_000 // shunt_uohm)
    bits = round(max(0.0, watts) * 1e6 / bit_uw)
    set_word(bus, chip, 3, bits)
    return bits * bit_uw / 1e6


def set_ina238(bus, chip, watts):
    """Sets the 24 bits of its power; the stub keeps one byte of a block in each register."""
    bits = round(watts * 1e6 / POWER_UW)
    for place in range(3):
        set_word(bus, chip, 8 + place, bits >> 8 * (2 - place) & 255, swapped=False)
    return bits * POWER_UW / 1e6


def files():
    """Everything in the chips' folders: a value, or the error that reading ends in."""
    found = {}
    for chip in sorted(Path("/sys/class/hwmon").glob("hwmon*")):
        for file in sorted(chip.iterdir()):
            if file.is_file() and file.name != "uevent":
                try:
                    found[f"sys/class/hwmon/{chip.name}/{file.name}"] = file.read_text().strip()
                except OSError as error:
                    found[f"sys/class/hwmon/{chip.name}/{file.name}"] = f"!{os.strerror(error.errno)}"
    return found


class Curve:
    """The powers that were set, and when."""

    def __init__(self, bus, chips):
        self.bus, self.chips = bus, chips
        self.changes = {name: [] for chip in chips for name, _ in chip["rails"] if name is not None}

    def set(self, step):
        """Goes to the next powers: different ones on each rail, one of them a step below nothing at times."""
        for chip in self.chips:
            for number, (name, shunt) in enumerate(chip["rails"]):
                if name is None:
                    continue
                watts = 6 + 2.5 * math.sin(step / 3 + number) if (step + number) % 7 else -0.03
                begun = time.monotonic()
                watts = self.write(chip, number, watts, shunt)
                self.changes[name].append((begun, time.monotonic(), watts))

    def write(self, chip, number, watts, shunt):
        """Sets one rail; returns the watts that its registers now say."""
        if chip["kind"] == "ina238":
            return set_ina238(self.bus, chip["address"], abs(watts) * 3)
        if chip["kind"] == "ina226":
            return set_ina226(self.bus, chip["address"], watts, shunt)
        return set_ina3221(self.bus, chip["address"], number, watts, shunt)


def stub_bus():
    """Returns the number of the stub's bus."""
    adapters = Path("/sys/bus/i2c/devices").glob("i2c-*")
    return next(int(each.name[4:]) for each in adapters if "stub" in (each / "name").read_text().lower())


def hold(watts, chips):
    curve = Curve(stub_bus(), chips)
    for chip in chips:
        for number, (name, shunt) in enumerate(chip["rails"]):
            if name is not None:
                curve.write(chip, number, watts, shunt)


def main(profile, seconds, chips):
    from edgewright_agent.telemetry.sampling.monitor import Telemetry
    from edgewright_profiles import load_profile

    curve = Curve(stub_bus(), chips)
    curve.set(0)
    telemetry = Telemetry(load_profile(profile))
    telemetry.start()
    before, steps = files(), int(seconds / STEP_SECONDS)
    for step in range(1, steps):
        time.sleep(STEP_SECONDS)
        curve.set(step)
        if step == steps // 3:
            switch_off()
        if step == 2 * steps // 3:
            unbind()
    time.sleep(STEP_SECONDS)
    telemetry.stop()
    points = {
        name: [(point.seconds, point.joules, point.gaps) for point in points]
        for name, points in telemetry.energy_points().items()
    }
    print(json.dumps({"changes": curve.changes, "points": points, "files": before}))


def switch_off():
    """Switches the first channel off for three seconds."""
    chip = next(each for each in Path("/sys/class/hwmon").glob("hwmon*") if (each / "in1_enable").exists())
    (chip / "in1_enable").write_text("0")
    time.sleep(3)
    (chip / "in1_enable").write_text("1")


def unbind():
    """Takes the drivers from their chips for three seconds."""
    devices = [(driver, each.name) for driver in DRIVERS.glob("ina*") for each in driver.glob("*-00*")]
    for driver, device in devices:
        (driver / "unbind").write_text(device)
    time.sleep(3)
    for driver, device in devices:
        (driver / "bind").write_text(device)


if sys.argv[1] == "hold":
    hold(float(sys.argv[2]), json.loads(sys.argv[3]))
else:
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
