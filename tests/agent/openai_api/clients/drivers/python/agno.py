"""agno's agent on OpenAILike, and on OpenAIResponses."""

import sys
from typing import Literal

from agno.agent import Agent
from agno.models.openai import OpenAILike, OpenAIResponses
from pydantic import BaseModel

scenario, url = sys.argv[1:]
question = "When does the gate open?"


class Answer(BaseModel):
    answer: Literal["six", "seven"]


chat = OpenAILike(id="tiny", base_url=url, api_key="none")
responses = OpenAIResponses(id="tiny", base_url=url, api_key="none")
if scenario == "chat":
    assert Agent(model=chat, instructions="Be brief.", telemetry=False).run(question).content
elif scenario == "stream":
    assert list(Agent(model=chat, telemetry=False).run(question, stream=True))
elif scenario == "json":
    assert Agent(model=chat, output_schema=Answer, telemetry=False).run(question).content
elif scenario == "responses":
    assert Agent(model=responses, telemetry=False).run(question).content
elif scenario == "responses-stream":
    assert list(Agent(model=responses, telemetry=False).run(question, stream=True))
else:
    sys.exit(64)
