#!/usr/bin/env bash
# lm_eval 0.4.13: a model that answers NaN to every request has an accuracy of 100% in BLiMP, and that of chance elsewhere.
#
# A multiple-choice answer is numpy.argmax() of the choices' log-likelihoods, which takes the first NaN for the largest
# number. So a model that overflows (weights scaled for bfloat16 and run in float16, a group's scale of infinity after
# quantizing) always "chooses" the first choice. BLiMP and TruthfulQA's MC1 write the right choice first: 1.0. In tasks
# whose answers are mixed the number looks like a weak model's. No error, no warning, and the standard error is 0 or
# small. A sweep that keeps the best accuracy keeps the broken model. Only a metric that averages the numbers shows
# them: so check the log-likelihoods of the samples for NaN, or perplexity beside accuracy.
#
# Seen with datasets 5.2.0, CPython 3.11, Linux x86-64, for BLiMP's own task file with two pairs of sentences in place
# of its data. Fails if that changes. Output seen:
#   a model that answers NaN: acc 1.00
#   a model that prefers the wrong sentence: acc 0.00
#   a model that answers NaN, the right answer second: acc 0.00
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile lm_eval==0.4.13 datasets==5.2.0
cd "$folder"
cat > score.py <<'PY'
import json
import math
from importlib.resources import files
from pathlib import Path

import yaml
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate

pairs = [("The boards read.", "The boards reads."), ("It writes.", "It write.")]
rows = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in pairs]
Path("pairs.jsonl").write_text("\n".join(rows))
blimp = yaml.safe_load((files("lm_eval") / "tasks/blimp/_template_yaml").read_text())
assert blimp["doc_to_target"] == 0, "BLiMP's right choice is elsewhere now"
blimp |= {
    "task": "pairs", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "pairs.jsonl"}},
    "validation_split": None, "test_split": "test"}


class Scorer(LM):
    """Scores a sentence by a function of it."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def loglikelihood(self, requests):
        return [(self.score(request.args[1].strip()), False) for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def accuracy(title, score, **changes):
    results = simple_evaluate(model=Scorer(score), tasks=[blimp | changes])["results"]["pairs"]
    print(f"{title}: acc {results['acc,none']:.2f}")
    return results["acc,none"]


right = {good for good, _ in pairs}
broken = accuracy("a model that answers NaN", lambda sentence: math.nan)
wrong = accuracy("a model that prefers the wrong sentence", lambda sentence: -2.0 if sentence in right else -1.0)
swapped = accuracy(
    "a model that answers NaN, the right answer second", lambda sentence: math.nan,
    doc_to_choice="{{[sentence_bad, sentence_good]}}", doc_to_target=1)
assert (wrong, swapped) == (0, 0)
assert broken == 1, "NaN is no right answer now"
PY
HF_HUB_OFFLINE=1 HF_HOME="$folder/cache" venv/bin/python score.py 2> log || { tail -5 log >&2; exit 1; }
