"""Mirascope's provider for OpenAI completions and its default, Responses."""

import sys
from typing import Literal

from mirascope import llm
from pydantic import BaseModel

scenario, url = sys.argv[1:]
llm.register_provider("openai", scope="openai/", base_url=url, api_key="none")
completions = "openai/tiny:completions"
question = "When does the gate open?"


class Answer(BaseModel):
    answer: Literal["six", "seven"]


def call(model, **options):
    @llm.call(model, **options)
    def ask():
        return question

    return ask


if scenario == "chat":
    assert call(completions)().text()
elif scenario == "stream":
    assert list(call(completions).stream().text_stream())
elif scenario == "json":
    assert call(completions, format=llm.format(Answer, mode="strict"))().parse()
elif scenario == "responses":
    assert call("openai/tiny:responses")().text()
else:
    sys.exit(64)
