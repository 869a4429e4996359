"""AutoRound on token sequences that are given: a peer of `recovery.py`, run by a Python that has auto-round.

    python benchmarks/autoround_peer.py WORK.json

It imports nothing of Edgewright. WORK.json names the 16-bit `model`, the folder to write (`out`), the token
`sequences`, `group_size`, `iterations` and `learning_rate`. Writes a symmetric GPTQ checkpoint of 4 bits.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Tunes the rounding block by block and writes the checkpoint."""
    import torch
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32)
    sequences = full_sequences(work["sequences"])
    tuner = AutoRound(
        model,
        AutoTokenizer.from_pretrained(work["model"]),
        scheme="W4A16",
        group_size=work["group_size"],
        sym=True,
        iters=work["iterations"],
        lr=work["learning_rate"],
        dataset=[{"input_ids": torch.tensor([tokens])} for tokens in sequences],
        nsamples=len(sequences),
        seqlen=len(sequences[0]),
        amp=False,
        enable_torch_compile=False,
        device_map="cpu",
    )
    with tempfile.TemporaryDirectory(dir=Path(work["out"]).parent) as scratch:
        tuner.quantize_and_save(scratch, format="auto_gptq")
        (written,) = Path(scratch).iterdir()  # a folder that AutoRound names after the model
        written.rename(work["out"])


def full_sequences(sequences: list[list[int]]) -> list[list[int]]:
    """Returns those of the usual length: AutoRound leaves shorter ones out."""
    longest = max(map(len, sequences))
    return [tokens for tokens in sequences if len(tokens) == longest]


if __name__ == "__main__":
    main()
