"""A tiny model in llama.cpp's own server, from the file that the exact repack writes.

The file's blocks are held in float32, and so is the KV cache, so that nothing but the model itself can differ: the
server multiplies Q4_0 in int8, which would hide a wrong factor. That the blocks hold the checkpoint's values bit for
bit is tested apart. The server tells the log-probabilities at every token that it writes, and a grammar has it write
the sequences: the first half after one token, the second half after a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.llama_cpp.build import find_server
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.fit.proof.tiny_config import VOCABULARY
from edgewright_builder.parity.checkpoint import HEAD_BITS, make_checkpoint
from edgewright_builder.parity.compare import Logits, Served, Tokens, sequences
from edgewright_builder.parity.llama_server import REQUESTS, running

if TYPE_CHECKING:
    import httpx
    from torch import nn

SEQUENCES = sequences(94)  # ASCII's letters: of a token that ends inside a character the server tells nothing
Q8_0_CODE_MAX = 127
# Of the logits, so that the server's probabilities do not fall below what float32 holds; capped ones do not.
LOGIT_SCALE = 1 / 16


def versions() -> dict[str, str]:
    """Returns the versions of server, writer and transformers. Raises RefusedError where no server can run here."""
    server = find_server()
    if server.problem:
        raise RefusedError(
            f"llama.cpp can't run on this host, so nothing can be proved: {server.problem}.",
            Reason.REASON_ENGINE_UNAVAILABLE,
        )
    own = {"server": f"{server.command[0]} {Path(server.command[0]).stat().st_mtime_ns}"}
    return {
        "llama.cpp": server.version,
        **{name: metadata.version(name) for name in ("gguf", "transformers")},
        **(own if server.has_gpu else {}),  # the user's own build, perhaps of other code with the same number
    }


def make(tiny: Mapping[str, Any], checkpoint: Path) -> nn.Module:
    """Writes the checkpoint; returns its model."""
    scale = 1.0 if tiny.get("final_logit_softcapping") else LOGIT_SCALE
    return make_checkpoint(tiny, checkpoint, table_code_max=Q8_0_CODE_MAX, logit_scale=scale)


def serve(checkpoint: Path, tied: bool, scratch: Path) -> Served:
    """Exports the checkpoint and returns what the server computes of `SEQUENCES`, two requests at a time."""
    model = scratch / "model.gguf"
    write_gguf(checkpoint, HEAD_BITS, model, "proof", dequantized=True)
    requests = [request for sequence in SEQUENCES for request in _requests(sequence)]
    with running(model, scratch) as http, ThreadPoolExecutor(REQUESTS) as callers:
        answers = iter(list(callers.map(lambda request: _written(http, *request), requests)))
    logprobs = [np.concatenate([next(answers) for _ in _requests(sequence)]) for sequence in SEQUENCES]
    return Served(logprobs, are_logprobs=True)


def _requests(sequence: Tokens) -> Iterator[tuple[Tokens, Tokens]]:
    """Yields prompts and what is written after them: all from the first token, then the second half from the middle."""
    written = [*sequence[1:], sequence[0]]  # one more than the sequence has, for the last position
    middle = len(sequence) // 2 + 1
    yield sequence[:1], written[: middle - 1]
    yield sequence[:middle], written[middle - 1 :]


def _written(http: httpx.Client, prompt: Tokens, tokens: Tokens) -> Logits:
    """Returns the log-probabilities of the whole vocabulary at each of the tokens that the server is made to write."""
    body = {
        "prompt": list(prompt), "n_predict": len(tokens), "n_probs": VOCABULARY, "temperature": 0,
        "cache_prompt": False, "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in tokens),
    }  # fmt: skip
    answer = http.post("/completion", json=body)
    answer.raise_for_status()
    told = answer.json()["completion_probabilities"]
    if [entry["id"] for entry in told] != list(tokens):
        raise RuntimeError("llama-server wrote other tokens than its grammar allows")
    logprobs = np.full((len(tokens), VOCABULARY), np.nan, np.float32)
    for row, entry in zip(logprobs, told, strict=True):
        for alternative in entry["top_logprobs"]:
            row[alternative["id"]] = alternative["logprob"]
    return logprobs
