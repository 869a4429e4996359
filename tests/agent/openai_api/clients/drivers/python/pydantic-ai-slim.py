"""pydantic-ai: Responses is its default for `openai:` models; chat completions have a class of their own."""

import asyncio
import sys
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

scenario, url = sys.argv[1:]
provider = OpenAIProvider(base_url=url, api_key="none")
chat, responses = OpenAIChatModel("tiny", provider=provider), OpenAIResponsesModel("tiny", provider=provider)
question = "When does the gate open?"


class Answer(BaseModel):
    answer: Literal["six", "seven"]


async def streamed(model):
    async with Agent(model, instructions="Be brief.").run_stream(question) as run:
        return [text async for text in run.stream_text()]


if scenario == "chat":
    assert Agent(chat, instructions="Be brief.").run_sync(question).output
elif scenario == "stream":
    assert asyncio.run(streamed(chat))
elif scenario == "json":
    assert Agent(chat, output_type=NativeOutput(Answer)).run_sync(question).output
elif scenario == "tools":
    Agent(chat, output_type=Answer, retries=0).run_sync(question)  # its default way to JSON is a tool
elif scenario == "json-prompted":
    assert Agent(chat, output_type=PromptedOutput(Answer)).run_sync(question).output
elif scenario == "responses":
    agent = Agent(responses, instructions="Be brief.")
    first = agent.run_sync(question)
    assert agent.run_sync("And on Sunday?", message_history=first.all_messages()).output
elif scenario == "responses-stream":
    assert asyncio.run(streamed(responses))
elif scenario == "responses-json":
    assert Agent(responses, output_type=NativeOutput(Answer)).run_sync(question).output
else:
    sys.exit(64)
