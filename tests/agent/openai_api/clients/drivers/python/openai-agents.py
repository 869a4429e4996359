"""OpenAI's Agents SDK: Responses by default, chat completions by its other model class."""

import asyncio
import sys
from typing import Literal

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel

scenario, url = sys.argv[1:]
set_tracing_disabled(True)
client = AsyncOpenAI(base_url=url, api_key="none")
chat = OpenAIChatCompletionsModel(model="tiny", openai_client=client)
responses = OpenAIResponsesModel(model="tiny", openai_client=client)
question = "When does the gate open?"


class Answer(BaseModel):
    answer: Literal["six", "seven"]


def agent(model, **options):
    return Agent(name="guard", instructions="Be brief.", model=model, **options)


async def streamed(model):
    run = Runner.run_streamed(agent(model), question)
    return [event async for event in run.stream_events()]


if scenario == "chat":
    assert Runner.run_sync(agent(chat), question).final_output
elif scenario == "stream":
    assert asyncio.run(streamed(chat))
elif scenario == "responses":
    assert Runner.run_sync(agent(responses), question).final_output
elif scenario == "responses-stream":
    assert asyncio.run(streamed(responses))
elif scenario == "responses-json":
    assert Runner.run_sync(agent(responses, output_type=Answer), question).final_output
else:
    sys.exit(64)
