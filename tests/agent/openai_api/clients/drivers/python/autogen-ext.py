"""AutoGen's OpenAIChatCompletionClient, which names speakers (`name`)."""

import asyncio
import sys
from typing import Literal

from autogen_core.models import SystemMessage, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel

scenario, url = sys.argv[1:]
info = {
    "vision": False,
    "function_calling": False,
    "json_output": True,
    "family": "unknown",
    "structured_output": True,
}
client = OpenAIChatCompletionClient(model="tiny", base_url=url, api_key="none", model_info=info)
messages = [SystemMessage(content="Be brief."), UserMessage(content="When does the gate open?", source="ann")]


class Answer(BaseModel):
    answer: Literal["six", "seven"]


async def main():
    if scenario == "chat":
        assert (await client.create(messages)).content
    elif scenario == "stream":
        assert [item async for item in client.create_stream(messages)]
    elif scenario == "json":
        assert (await client.create(messages, json_output=Answer)).content
    elif scenario == "json-object":
        assert (await client.create(messages, json_output=True)).content
    else:
        sys.exit(64)
    await client.close()


asyncio.run(main())
