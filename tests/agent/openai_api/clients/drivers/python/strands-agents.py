"""Strands Agents' OpenAIModel, which always streams."""

import sys

from strands import Agent
from strands.models.openai import OpenAIModel

scenario, url = sys.argv[1:]
if scenario != "stream":
    sys.exit(64)
model = OpenAIModel(client_args={"base_url": url, "api_key": "none"}, model_id="tiny")
assert Agent(model=model, system_prompt="Be brief.", callback_handler=None)(
    "When does the gate open?"
).message
