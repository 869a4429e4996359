"""Runs on the board: starts the agent's engine on a release, fills its whole context, and reads its memory.

    python3 fill_context.py RELEASE

RELEASE holds `manifest.json`, the files it names, and the prompt in `prompt.txt`. Prints JSON, in bytes: `peak`, by the
agent's own reading, and what of the memory after the request is mapped from files, and what is not.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from edgewright.manifest import parse_manifest
from edgewright_agent.engines import EngineLimits, GenerationRequest, Token, start_engine
from edgewright_agent.engines.process import hang_detection

GENERATED_TOKENS = 8
NO_LIMIT_BYTES = 2**40
READY_SECONDS = 900.0  # under emulation
# There a slice of a prompt takes longer than any board may be silent, so that nobody asks.
hang_detection.HEARTBEAT_SPACING_SECONDS = 86_400.0


async def fill(release: Path) -> dict[str, int]:
    manifest = parse_manifest((release / "manifest.json").read_bytes())
    limits = EngineLimits(
        manifest.limits.context_tokens, manifest.limits.concurrency, memory_bytes=NO_LIMIT_BYTES
    )
    prompt = (release / "prompt.txt").read_text(encoding="ascii")
    request = GenerationRequest(prompt=prompt, max_tokens=GENERATED_TOKENS, ignore_eos=True)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as runtime:
        engine = await start_engine(
            manifest.engine.kind, release, manifest, limits,
            runtime_dir=Path(runtime), ready_timeout_seconds=READY_SECONDS,
        )  # fmt: skip
        try:
            events = [event async for event in engine.generate(request)]
            return {
                "peak": engine.memory().peak_bytes,
                "tokens": sum(isinstance(event, Token) for event in events),
                "prompt_tokens": events[-1].prompt_tokens,
                "of_files": status(engine.pid, "RssFile"),
                "anonymous": status(engine.pid, "RssAnon"),
            }
        finally:
            await engine.stop()


def status(pid: int, name: str) -> int:
    """Returns a line of /proc/PID/status (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


print(json.dumps(asyncio.run(fill(Path(sys.argv[1])))))
