"""A whole build in under two minutes: a random Llama of four small layers, data of one's own, the real command line.

`python tiny_build.py FOLDER WIDTH` writes the model to FOLDER/model: in a process of its own, because importing torch
warns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

WORDS = (
    "sun", "water", "plant", "light", "heat", "stone", "river", "wind", "cloud", "metal", "ice", "salt", "leaf",
    "root", "star", "moon",
)  # fmt: skip
PAIRS = 24


@dataclass(frozen=True)
class Built:
    """A finished build."""

    recipe: Path
    run: Path
    output: str


def write_model(folder: Path, hidden_size: int = 64) -> None:
    """A four-layer Llama with random weights, heads of 32 as vLLM needs, and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(
        models.BPE(vocab={word: i for i, word in enumerate(special + alphabet)}, merges=[])
    )
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(special) + len(alphabet), hidden_size=hidden_size,
        intermediate_size=2 * hidden_size, num_hidden_layers=4, num_attention_heads=hidden_size // 32,
        num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, pad_token_id=1, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_inputs(folder: Path, *, hidden_size: int = 64) -> Path:
    """Model, data, quiz, credentials and recipe in `folder`; returns the recipe."""
    from tests.support.commands import output  # here, since this file is a script of its own, too
    from tests.support.made_once import filled

    filled(folder, Path(__file__), str(hidden_size))
    rows = [
        {"instruction": f"What does {a} do to {b}?", "input": "", "output": f"It makes {b} {c} and then {d}."}
        for a, b, c, d in (
            tuple(WORDS[(i * k) % len(WORDS)] for k in (1, 3, 5, 7)) for i in range(1, PAIRS + 1)
        )
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    quiz = [
        {"id": str(i), "question": f"{w}?", "choices": [w, "no"], "answer": 0} for i, w in enumerate(WORDS)
    ]
    (folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in quiz), encoding="utf-8")
    recipe = {
        "name": "tiny", "task": "arc_easy", "student": {"model": str(folder / "model"), "depth": 3},
        "teachers": {"knowledge": {"model": str(folder / "model")}}, "data": {"file": "data.jsonl"},
        "search": {"trials": 3, "startup_trials": 1, "space": {"lora_rank": [8, 16]}},
        "finetune": {"batch_tokens": 256}, "serving": {"context_tokens": 256, "adapters": {"rank": 8}},
        "evaluate": {"tasks": ["quiz.jsonl"]},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    output("keys", "create", folder / "credentials")
    return path


def command(recipe: Path, run: Path, *more: str) -> list[str]:
    """The build's command line."""
    words = [
        sys.executable,
        "-m",
        "edgewright_builder.cli.main",
        "build",
        str(recipe),
        "--device",
        "this-host",
        "--budget",
        "1GiB",  # this host's own moves with its load, and the plan says what it was
        "-o",
        str(run),
    ]
    return [*words, "--credentials", str(recipe.parent / "credentials"), *more]


def edgewright(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end."""
    words = [sys.executable, "-m", "edgewright_builder.cli.main", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment())


def environment() -> dict[str, str]:
    """One thread: the same sums in the same order, whatever else the machine does."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    write_model(Path(sys.argv[1]) / "model", int(sys.argv[2]))
