"""Programs that answer as a user's own llama-server: an older one, one of another kind, and one that really serves."""

from __future__ import annotations

import sys
from pathlib import Path

from edgewright_agent.engines.llama_cpp.build import NEEDED_FLAGS, PACKAGE_SERVER

OTHER_FLAGS = ("--load-mode", "--cache-ram", "--ctx-checkpoints", "--no-ui", "--offline")
ON_SOCKETS = "--host HOST  ip address to listen, or bind to an UNIX socket if the address ends with .sock"


def write_server(
    folder: Path, *, version: str = "11549", without: str = "", help_text: str | None = None
) -> Path:
    """Writes a `llama-server` that prints a version and a help, and serves with the package's."""
    flags = [flag for flag in (*NEEDED_FLAGS, *OTHER_FLAGS) if flag != without]
    listed = (
        "\n".join([*(flag for flag in flags if flag != "--host"), ON_SOCKETS])
        if help_text is None
        else help_text
    )
    script = folder / "llama-server"
    script.write_text(
        f"""#!{sys.executable}
import os, sys
if sys.argv[1:] == ["--version"]:
    print("version: {version} (0123abc)", file=sys.stderr)
elif sys.argv[1:] == ["--help"]:
    print({listed!r})
else:
    words = sys.argv[1:]
    at = words.index("--gpu-layers")
    del words[at : at + 2]
    os.execv(sys.executable, [sys.executable, "-I", {str(PACKAGE_SERVER)!r}, *words])
""",
        encoding="utf-8",
    )
    script.chmod(0o755)
    return script
