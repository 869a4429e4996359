"""Haystack's OpenAIChatGenerator and OpenAIResponsesChatGenerator."""

import sys
from typing import Literal

from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret
from pydantic import BaseModel

scenario, url = sys.argv[1:]
settings = {"model": "tiny", "api_base_url": url, "api_key": Secret.from_token("none")}
messages = [ChatMessage.from_system("Be brief."), ChatMessage.from_user("When does the gate open?")]


class Answer(BaseModel):
    answer: Literal["six", "seven"]


if scenario == "chat":
    assert OpenAIChatGenerator(**settings).run(messages)["replies"][0].text
elif scenario == "stream":
    assert OpenAIChatGenerator(streaming_callback=lambda chunk: None, **settings).run(messages)["replies"]
elif scenario == "json":
    generator = OpenAIChatGenerator(generation_kwargs={"response_format": Answer}, **settings)
    assert generator.run(messages)["replies"]
elif scenario == "responses":
    assert OpenAIResponsesChatGenerator(**settings).run(messages)["replies"]
elif scenario == "responses-stream":
    generator = OpenAIResponsesChatGenerator(streaming_callback=lambda chunk: None, **settings)
    assert generator.run(messages)["replies"]
else:
    sys.exit(64)
