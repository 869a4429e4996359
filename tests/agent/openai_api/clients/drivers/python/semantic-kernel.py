"""Semantic Kernel's OpenAIChatCompletion on an OpenAI client of its own."""

import asyncio
import sys
from typing import Literal

from openai import AsyncOpenAI
from pydantic import BaseModel
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory

scenario, url = sys.argv[1:]
service = OpenAIChatCompletion(ai_model_id="tiny", async_client=AsyncOpenAI(base_url=url, api_key="none"))
history = ChatHistory(system_message="Be brief.")
history.add_user_message("When does the gate open?")


class Answer(BaseModel):
    answer: Literal["six", "seven"]


async def main():
    settings = OpenAIChatPromptExecutionSettings()
    if scenario == "chat":
        assert await service.get_chat_message_content(history, settings)
    elif scenario == "stream":
        assert [chunk async for chunk in service.get_streaming_chat_message_content(history, settings)]
    elif scenario == "json":
        settings.response_format = Answer
        assert await service.get_chat_message_content(history, settings)
    else:
        sys.exit(64)


asyncio.run(main())
