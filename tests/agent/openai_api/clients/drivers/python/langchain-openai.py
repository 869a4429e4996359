"""LangChain's ChatOpenAI, with chat completions and with its option for Responses."""

import sys
from typing import Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel

scenario, url = sys.argv[1:]
messages = [("system", "Be brief."), ("human", "When does the gate open?")]


class Answer(BaseModel):
    answer: Literal["six", "seven"]


def model(**options):
    return ChatOpenAI(model="tiny", base_url=url, api_key="none", **options)


if scenario == "chat":
    assert model().invoke(messages).content
elif scenario == "stream":
    assert list(model().stream(messages))
elif scenario == "json":
    assert model().with_structured_output(Answer).invoke(messages)
elif scenario == "responses":
    assert model(use_responses_api=True).invoke(messages).content
elif scenario == "responses-stream":
    assert list(model(use_responses_api=True).stream(messages))
else:
    sys.exit(64)
