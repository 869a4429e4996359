"""Outlines on the official package's client."""

import sys
from typing import Literal

import openai
import outlines
from pydantic import BaseModel

scenario, url = sys.argv[1:]
model = outlines.from_openai(openai.OpenAI(base_url=url, api_key="none"), "tiny")


class Answer(BaseModel):
    answer: Literal["six", "seven"]


if scenario == "chat":
    assert model("When does the gate open?")
elif scenario == "stream":
    assert list(model.stream("When does the gate open?"))
elif scenario == "json":
    assert model("When does the gate open?", Answer)
else:
    sys.exit(64)
