"""Makes a tiny Llama with random weights, exports it, and writes down what `transformers` says of it.

    python tiny_model.py FOLDER [WINDOW]

With WINDOW it is a Qwen2 whose layers attend to that many tokens. A script of its own, because torch's import warns and
takes seconds. FOLDER gets `engine/`, `tokenizer/` and `reference.json`.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("e", "r"), ("a", "n"), ("Ġ", "a"), ("o", "n")]
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
READABLE = "abcdefghijklmnopqrstuvwxyz .,Ġ"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT_TOKENS = 256
PAIRS = [
    ("the cat sat on", " the mat"),
    ("the cat sat on", " a"),
    ("the cat sat on ", "the mat and then on another one"),
    ("", "the"),
    ("where? ", "größer"),
]
PROMPT = "on the other hand"
MESSAGES = [{"role": "system", "content": "be brief "}, {"role": "user", "content": "hi"}]


def main(folder: Path, window: int | None = None) -> None:
    """Writes everything below `folder`."""
    tokenizer, model = make_tokenizer(), make_model(window)
    tokenizer.save_pretrained(folder / "tokenizer")
    checkpoint = folder / "checkpoint"
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    (folder / "reference.json").write_text(json.dumps(reference(tokenizer, model)), encoding="utf-8")
    # The exporter's command line, in this process: importing torch a second time would double the time.
    sys.argv[1:] = ["-i", str(checkpoint), "-o", str(folder / "engine"), "-p", "fp32", "-e", "cpu"]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")


def vocabulary() -> dict[str, int]:
    """Special tokens, every byte, and a few merges."""
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in MERGES)]
    return {word: index for index, word in enumerate(words)}


def make_tokenizer() -> Any:
    """Byte-level BPE."""
    bpe = Tokenizer(models.BPE(vocab=vocabulary(), merges=MERGES))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=SPECIAL[1], eos_token=SPECIAL[2])
    fast.chat_template = TEMPLATE
    return fast


def make_model(window: int | None = None) -> Any:
    """Returns a model of random weights, with unreadable bytes made unlikely so that it writes letters."""
    torch.manual_seed(0)
    words = vocabulary()
    shape: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,  # heads of 32: vLLM has no attention kernel for smaller ones
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if window is None:
        model: Any = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    else:
        windowed = Qwen2Config(**shape, use_sliding_window=True, sliding_window=window, max_window_layers=0)
        model = Qwen2ForCausalLM(windowed).eval()
    readable = [
        index for word, index in words.items() if word in READABLE or word == SPECIAL[2] or len(word) == 2
    ]
    dull = torch.ones(len(words), dtype=torch.bool)
    dull[readable] = False
    with torch.no_grad():
        model.lm_head.weight[dull] *= 0.05
    return model


@torch.no_grad()
def reference(tokenizer: Any, model: Any) -> dict[str, Any]:
    """Log-likelihoods, a greedy continuation, and the chat prompt, all by `transformers`."""
    tokens = tokenizer.encode(PROMPT)
    greedy = model.generate(
        torch.tensor([tokens]), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    chat = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    return {
        "prompt": PROMPT,
        "greedy": greedy[0, len(tokens) :].tolist(),
        "messages": MESSAGES,
        "chat": chat,
        "pairs": [[*pair, *log_likelihood(tokenizer, model, *pair)] for pair in PAIRS],
    }


def log_likelihood(tokenizer: Any, model: Any, context: str, continuation: str) -> tuple[float, int, bool]:
    """Sum, count and greediness, in float32, over the whole sequence in one pass."""
    whole = tokenizer.encode(context + continuation) if context else [1, *tokenizer.encode(continuation)]
    begin = len(tokenizer.encode(context.rstrip())) if context else 1
    logits = model(torch.tensor([whole])).logits[0]
    targets = torch.tensor(whole[begin:])
    rows = torch.log_softmax(logits[begin - 1 : -1], dim=-1)
    chosen = rows.gather(1, targets[:, None])
    return float(chosen.sum()), len(targets), bool((rows.argmax(-1) == targets).all())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else None)
