"""A Llama of a few thousand random weights with a tokenizer trained on a page of text: real code paths, no download."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# Two threads on a busy machine wait for each other longer than these models compute.
torch.set_num_threads(1)

TEXT = """Which force makes a dropped spoon fall to the floor? Gravity pulls it down. What do plants need to grow?
Plants need water, light and air. Name sub-topics of weather: wind, rain, clouds and snow. Score from 1 to 5: 3.
Question: Why is the sky blue? Answer: Light of short waves is spread more by the air. A. B. C. D. E."""
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@lru_cache
def tiny_tokenizer() -> Any:
    """Byte-level BPE of 384 tokens with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )


@lru_cache
def tiny_model(seed: int = 0) -> Any:
    """Two layers, grouped attention, tied embeddings, float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()
