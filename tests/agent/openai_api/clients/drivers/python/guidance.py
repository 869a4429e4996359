"""Guidance's OpenAI model, which always streams and asks for log-probabilities."""

import sys

from guidance import assistant, gen, user
from guidance.models import OpenAI

scenario, url = sys.argv[1:]
if scenario != "stream":
    sys.exit(64)
model = OpenAI("tiny", base_url=url, api_key="none", echo=False)
with user():
    model += "When does the gate open?"
with assistant():
    model += gen("answer", max_tokens=10)
assert model["answer"]
