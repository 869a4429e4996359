#!/usr/bin/env bash
# lm_eval 0.4.13: with one use_cache path, the second model gets the first one's answers, and thus its accuracy.
#
# use_cache (--use_cache on the command line) keeps a model's responses in a file, so that a long run can go on after a
# break. A response is looked up by the kind of request and its text, and by nothing else: not the model's name, not its
# arguments, not its dtype or quantization. So where a script that compares a model with its 4-bit build gives both the
# same path, the second one is never asked. Its accuracy equals the first one's to the last digit, with no warning: the
# build has "lost nothing". The path only gets the rank of the process at its end. Use a path per checkpoint.
#
# Seen on CPython 3.11, Linux x86-64, a task of two pairs of sentences. Fails if that changes. Output seen:
#   a model that prefers the right sentence: acc 1.00, asked 4 times
#   a model that prefers the wrong sentence: acc 1.00, asked 0 times
#   the same with a path of its own: acc 0.00, asked 4 times
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile lm_eval==0.4.13 datasets==5.2.0
cd "$folder"
cat > cached.py <<'PY'
import json
from pathlib import Path

from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate

pairs = [("The board reads.", "The board read."), ("They write.", "They writes.")]
Path("pairs.jsonl").write_text("\n".join(json.dumps({"right": right, "wrong": wrong}) for right, wrong in pairs))
task = {
    "task": "pairs", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "pairs.jsonl"}},
    "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "", "doc_to_choice": "{{[right, wrong]}}",
    "doc_to_target": 0, "metric_list": [{"metric": "acc"}],
}


class Preferring(LM):
    """Gives the sentences in `better` the higher log-likelihood, and counts how often it is asked."""

    def __init__(self, better):
        super().__init__()
        self.better, self.asked = better, 0

    def loglikelihood(self, requests):
        self.asked += len(requests)
        return [(-1.0 if request.args[1].strip() in self.better else -2.0, False) for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def accuracy(title, model, path):
    scores = simple_evaluate(model=model, tasks=[task], use_cache=path)["results"]["pairs"]
    print(f"{title}: acc {scores['acc,none']:.2f}, asked {model.asked} times")
    return scores["acc,none"], model.asked


good, bad = ({pair[index] for pair in pairs} for index in (0, 1))
assert accuracy("a model that prefers the right sentence", Preferring(good), "responses") == (1, 4)
second = accuracy("a model that prefers the wrong sentence", Preferring(bad), "responses")
assert accuracy("the same with a path of its own", Preferring(bad), "other") == (0, 4)
assert second == (1, 0), "the cache tells models apart now"
PY
HF_HUB_OFFLINE=1 HF_HOME="$folder/cache" venv/bin/python cached.py 2> log || { tail -5 log >&2; exit 1; }
