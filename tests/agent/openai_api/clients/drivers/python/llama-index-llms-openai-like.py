"""LlamaIndex's class for OpenAI-compatible servers."""

import sys
from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

scenario, url = sys.argv[1:]
model = OpenAILike(model="tiny", api_base=url, api_key="none", is_chat_model=True, context_window=256)
messages = [
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content="When does the gate open?"),
]


class Answer(BaseModel):
    answer: Literal["six", "seven"]


if scenario == "chat":
    assert model.chat(messages).message.content
elif scenario == "stream":
    assert list(model.stream_chat(messages))
elif scenario == "json":
    strict = OpenAILike(
        model="tiny", api_base=url, api_key="none", is_chat_model=True, should_use_structured_outputs=True
    )
    assert strict.as_structured_llm(Answer).chat(messages).raw
else:
    sys.exit(64)
