"""instructor in the modes that need no tools: a JSON schema and plain JSON."""

import sys
from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel

scenario, url = sys.argv[1:]
messages = [{"role": "user", "content": "When does the gate open?"}]


class Answer(BaseModel):
    answer: Literal["six", "seven"]


def client(mode):
    return instructor.from_openai(OpenAI(base_url=url, api_key="none"), mode=mode)


if scenario == "json":
    asked = client(instructor.Mode.JSON_SCHEMA).chat.completions
    assert asked.create(model="tiny", messages=messages, response_model=Answer)
elif scenario == "json-object":
    asked = client(instructor.Mode.JSON).chat.completions
    assert asked.create(model="tiny", messages=messages, response_model=Answer)
elif scenario == "tools":
    asked = client(instructor.Mode.TOOLS).chat.completions
    asked.create(model="tiny", messages=messages, response_model=Answer, max_retries=0)
elif scenario == "stream":
    asked = client(instructor.Mode.JSON_SCHEMA).chat.completions
    assert list(asked.create_partial(model="tiny", messages=messages, response_model=Answer))
else:
    sys.exit(64)
