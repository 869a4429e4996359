"""Builds the drivers that Debian's arm64 kernel lacks, from Debian's sources of the same kernel.

Debian builds no ina3221, ina2xx, ina238 for arm64, and no i2c-stub, whose chips are memory that anybody may write.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from virtual_board.debian import unpack_headers
from virtual_board.needs import NeedError
from virtual_board.settings import Parts

SOURCES = Path("/usr/src/linux-source-6.1.tar.xz")
TOOLS = Path("/usr/lib/linux-kbuild-6.1")
PACKAGES = "linux-source-6.1 linux-kbuild-6.1 gcc-aarch64-linux-gnu make device-tree-compiler"
DRIVERS = (
    "drivers/hwmon/ina3221.c",
    "drivers/hwmon/ina2xx.c",
    "drivers/hwmon/ina238.c",
    "drivers/i2c/i2c-stub.c",
)
HEADER = "include/linux/platform_data/ina2xx.h"
# The stub's bus takes its chips from the device tree, so that drivers find labels and shunts there.
INCLUDE, ADD = "#include <linux/slab.h>\n", "\tret = i2c_add_adapter(&stub_adapter);\n"
FROM_TREE = '\tstub_adapter.dev.of_node = of_find_node_by_path("/i2c-stub");\n'


def build_modules(parts: Parts) -> Path:
    """Returns the folder with the built modules; made once."""
    folder = parts.folder / "sensors"
    if len(list(folder.glob("*.ko"))) == len(DRIVERS):
        return folder
    programs_are_here = all(shutil.which(name) for name in ("aarch64-linux-gnu-gcc", "make", "dtc"))
    if not (SOURCES.exists() and TOOLS.exists() and programs_are_here):
        raise NeedError(f"The sensors' drivers are compiled: sudo apt install {PACKAGES}")
    folder.mkdir(exist_ok=True)
    _take_sources(folder)
    headers = _headers(parts)
    names = " ".join(f"{Path(name).stem}.o" for name in DRIVERS)
    (folder / "Makefile").write_text(f"obj-m := {names}\n", encoding="ascii")
    log = folder / "make.log"
    with log.open("w", encoding="utf-8") as out:
        done = subprocess.run(
            ["make", "-C", headers, f"M={folder}", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "modules"],
            stdout=out, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode:
        raise NeedError(f"The sensors' drivers could not be compiled; see {log}.")
    return folder


def _take_sources(folder: Path) -> None:
    names = [f"linux-source-6.1/{name}" for name in (*DRIVERS, HEADER)]
    subprocess.run(["tar", "-xJf", SOURCES, "-C", folder, "--strip-components=1", *names], check=True)
    for name in DRIVERS:
        shutil.copy(folder / name, folder)
    stub = folder / "i2c-stub.c"
    text = stub.read_text(encoding="utf-8")
    if INCLUDE not in text or ADD not in text:
        raise NeedError("i2c-stub of this kernel is another one than virtual_board/sensors/modules.py knows.")
    text = text.replace(INCLUDE, f"{INCLUDE}#include <linux/of.h>\n").replace(ADD, FROM_TREE + ADD)
    stub.write_text(text, encoding="utf-8")


def _headers(parts: Parts) -> Path:
    """Returns the kernel's headers, with the build tools of this machine in the place of the board's."""
    root = parts.folder / "headers"
    if not root.exists():
        unpack_headers(root, parts.kernel_version)
        tools = root / "usr/lib" / TOOLS.name
        shutil.rmtree(tools)
        shutil.copytree(TOOLS, tools, symlinks=True)
    source = root / f"usr/src/linux-headers-{parts.kernel_version}"
    makefile, common = source / "Makefile", root / "usr/src"
    text = makefile.read_text(encoding="utf-8")
    makefile.write_text(text.replace("include /usr/src/", f"include {common}{os.sep}"), encoding="utf-8")
    return source
