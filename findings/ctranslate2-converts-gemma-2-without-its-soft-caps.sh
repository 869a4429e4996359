#!/usr/bin/env bash
# ctranslate2 4.8.5 converts a Gemma 2 without its soft caps: other logits from the first token on, and no word of it.
#
# Gemma 2 bounds two things by cap · tanh(x / cap): each attention score (attn_logit_softcapping, 50) and the logits at the
# end (final_logit_softcapping, 30). It was trained so. CTranslate2 has a converter for Gemma 2, and neither number is in it
# or in the converted model. The final cap keeps the order of the logits, so greedy answers start out the same; but the
# probabilities are sharper than the model's, so that sampling at temperature 1 is colder and a perplexity is not the
# model's. The cap of the scores changes the order as well. With both caps off in its config.json the same model agrees.
#
# Seen with transformers 5.24.0, torch 2.13.0, CPython 3.11, Linux x86-64, a random Gemma 2 of two layers with logits as
# large as a trained one's. Fails if that changes. Output seen:
#   without caps: largest logit 28.3, in CTranslate2 28.3; probabilities differ by up to 0.00
#   with its caps: largest logit 22.1, in CTranslate2 28.3; probabilities differ by up to 0.27
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  ctranslate2==4.8.5 transformers==5.24.0 tokenizers==0.23.3 torch==2.13.0
cd "$folder"
cat > gemma.py <<'PY'
from pathlib import Path

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from tokenizers import Tokenizer, models
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(256)}, unk_token="w0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w1", unk_token="w0")
tokens = torch.randint(2, 256, (32,)).tolist()
weights, report = None, []
for name, caps in {"without caps": (None, None), "with its caps": (50.0, 30.0)}.items():
    config = Gemma2Config(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=4096, pad_token_id=1, bos_token_id=0,
        attn_logit_softcapping=caps[0], final_logit_softcapping=caps[1], initializer_range=1.0,
        tie_word_embeddings=False,  # else the last token itself has the probability 1
    )
    model = Gemma2ForCausalLM(config).eval()
    weights = weights or {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    model.save_pretrained(name)
    tokenizer.save_pretrained(name)
    with torch.inference_mode():
        exact = model(torch.tensor([tokens])).logits[0]
    TransformersConverter(name).convert(f"{name}, converted")
    generator = ctranslate2.Generator(f"{name}, converted", device="cpu", compute_type="float32")
    given = torch.tensor(np.array(generator.forward_batch([[f"w{token}" for token in tokens]])))[0, :, :256]
    off = float((exact.softmax(-1) - given.softmax(-1)).abs().max())
    report.append((float(exact.max()), float(given.max()), off))
    line = "{}: largest logit {:.1f}, in CTranslate2 {:.1f}; probabilities differ by up to {:.2f}\n"
    with Path("report").open("a") as file:
        file.write(line.format(name, *report[-1]))
assert report[0][2] < 1e-3, "not the same model without caps"
assert report[1][2] > 0.1 and abs(report[1][1] - report[0][1]) < 1e-2, "the caps are converted now"
PY
venv/bin/python gemma.py > log 2>&1 || { tail -20 log >&2; cat report >&2; exit 1; }
cat report
