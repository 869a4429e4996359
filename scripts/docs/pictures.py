"""Makes the documentation's pictures anew: `python scripts/docs/pictures.py RUN ADDRESS`.

RUN is a build of examples/ticket-routing.yaml with its report. ADDRESS is an agent with nothing on it, whose
certificate EDGEWRIGHT_CREDENTIALS fits. Needs Chromium, and cwebp of Debian's package `webp`.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "images"
EDGEWRIGHT = Path(sys.executable).with_name("edgewright")
COLUMNS = 96
REPORT_PIXELS = (1100, 1130)
CURSOR = re.compile(r"\x1b\[(?:2K|1A|\?25[lh])|\r")
FONT = re.compile(
    r"@font-face \{.*?\}", re.DOTALL
)  # fetched from elsewhere; the next in the list does as well
BAR = re.compile(r"\d:\d\d:\d\d(\x1b\[0m)?\s*$")  # the bar that a terminal draws over ends with a time
PROMPT = "Half of my order is missing from the carton."


def main() -> None:
    """Writes report.webp and terminal.svg."""
    run, address = Path(sys.argv[1]), sys.argv[2]
    picture_report(run / "report.html")
    picture_terminal([
        ["push", f"{run}/artifact", address],
        ["generate", address, PROMPT],
    ])  # fmt: skip


def picture_report(page: Path) -> None:
    """The head of a report as Chromium shows it."""
    width, height = REPORT_PIXELS
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "report.png"
        browser = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            "--force-device-scale-factor=1.5",
        ]
        size = f"--window-size={width},{height}"
        subprocess.run([*browser, size, f"--screenshot={shot}", page.resolve().as_uri()], check=True)
        subprocess.run(
            ["cwebp", "-quiet", "-q", "82", str(shot), "-o", str(IMAGES / "report.webp")], check=True
        )


def picture_terminal(commands: list[list[str]]) -> None:
    """What the commands print, in color, without the bar that a terminal draws over."""
    console = Console(record=True, width=COLUMNS, force_terminal=True, file=io.StringIO())
    for command in commands:
        shown = " ".join(f'"{word}"' if " " in word else word for word in command)
        console.print(Text(f"$ edgewright {shown}", style="bold green"), soft_wrap=True)
        for line in output(command):
            console.print(Text.from_ansi(line))
        console.print()
    drawing = FONT.sub("", console.export_svg(title="edgewright"))
    (IMAGES / "terminal.svg").write_text(drawing, encoding="utf-8")


def output(command: list[str]) -> list[str]:
    """The lines a command prints to a terminal of our width."""
    terminal = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        [str(EDGEWRIGHT), *command],
        env=os.environ | terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    lines = [CURSOR.sub("", line) for line in done.stdout.splitlines()]
    return [line for line in lines if line.strip() and not BAR.search(line)]


if __name__ == "__main__":
    main()
