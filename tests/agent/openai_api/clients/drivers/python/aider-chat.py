"""aider's model class, as its chat sends one message."""

import os
import sys

scenario, url = sys.argv[1:]
os.environ |= {"OPENAI_API_BASE": url, "OPENAI_API_KEY": "none", "AIDER_ANALYTICS": "false"}

from aider.models import Model  # noqa: E402 - reads the environment

model = Model("openai/tiny")
messages = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "When does the gate open?"},
]
if scenario not in ("chat", "stream"):
    sys.exit(64)
_, answer = model.send_completion(messages, None, stream=scenario == "stream")
assert list(answer)
