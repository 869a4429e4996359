#!/usr/bin/env bash
# ctranslate2 4.8.5: in a prompt longer than a model's sliding window tokens see up to two windows, and the logits are others.
#
# A window of 4,096 (Mistral) or 512 (small Gemma 3) means that a token sees itself and the 4,095 or 511 before it. The
# model was trained so. CTranslate2 reads a longer prompt in pieces of one window, and lets each token of a piece see the
# piece up to itself and the whole window before the piece: twice the window for its last token. While it writes it keeps
# to one window. So the same tokens give one answer as a prompt and another when they were written by the model, as in a
# chat whose turns are sent again; only the latter is the model's. No warning. Keep prompts within the window.
#
# Seen with transformers 5.24.0, torch 2.13.0, CPython 3.11, Linux x86-64, a random Mistral of three layers with a window
# of 16; a Gemma 3 does the same. Fails if that changes. Output seen (errors of logits, as a share of their spread):
#   a prompt of 16 tokens: 0.000
#   32 more tokens, written one at a time: at most 0.000
#   the same 48 tokens as a prompt: 1.591, and 0.000 from transformers with the wider windows
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  ctranslate2==4.8.5 transformers==5.24.0 tokenizers==0.23.3 torch==2.13.0
cd "$folder"
cat > window.py <<'PY'
from pathlib import Path

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from tokenizers import Tokenizer, models
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

WINDOW, WRITTEN, VOCABULARY = 16, 32, 256

torch.manual_seed(0)
config = MistralConfig(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, sliding_window=WINDOW, initializer_range=0.1, bos_token_id=0, eos_token_id=1,
    attn_implementation="eager",
)
model = MistralForCausalLM(config).eval()
model.save_pretrained("model")
words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(VOCABULARY)}, unk_token="w0"))
PreTrainedTokenizerFast(
    tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w1", unk_token="w0"
).save_pretrained("model")
TransformersConverter("model").convert("converted")
generator = ctranslate2.Generator("converted", device="cpu", compute_type="float32")


def written(tokens, count):
    """The ids that follow the prompt `tokens`, and the logits of each; but for 0 and 1, as min_length sets the end's."""
    result = generator.generate_batch(
        [[f"w{token}" for token in tokens]], max_length=count, min_length=count, include_prompt_in_result=False,
        return_logits_vocab=True)[0]
    logits = [np.array(values).reshape(-1)[2:VOCABULARY] for values in result.logits[0]]
    return result.sequences_ids[0], torch.tensor(np.stack(logits))


def exact(tokens, mask=None):
    with torch.inference_mode():
        return model(torch.tensor([tokens]), attention_mask=mask).logits[0, WINDOW - 1 :, 2:]


def error(given, expected):
    return float((given - expected).abs().max() / expected.std())


prompt = torch.randint(2, VOCABULARY, (WINDOW,)).tolist()
ids, logits = written(prompt, WRITTEN + 1)
tokens = prompt + ids[:WRITTEN]
right = exact(tokens)
_, (last,) = written(tokens, 1)

places = torch.arange(len(tokens))
first = places // WINDOW * WINDOW - WINDOW  # the piece and the window before it
first[-1] = len(tokens) - WINDOW  # the last token is read by itself
seen = (places[None] >= first[:, None]) & (places[None] <= places[:, None])
wide = exact(tokens, torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None])

errors = error(logits[0], right[0]), error(logits[1:], right[1:]), error(last, right[-1]), error(last, wide[-1])
Path("report").write_text(
    f"a prompt of {WINDOW} tokens: {errors[0]:.3f}\n"
    f"{WRITTEN} more tokens, written one at a time: at most {errors[1]:.3f}\n"
    f"the same {len(tokens)} tokens as a prompt: {errors[2]:.3f}, and {errors[3]:.3f} from transformers with the wider windows\n")
assert max(errors[0], errors[1], errors[3]) < 1e-3, "not the same model"
assert errors[2] > 0.1, "a long prompt has its window now"
PY
venv/bin/python window.py > log 2>&1 || { tail -20 log >&2; cat report >&2; exit 1; }
cat report
