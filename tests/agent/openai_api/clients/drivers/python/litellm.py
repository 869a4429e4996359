"""litellm, with its provider for OpenAI-compatible servers and its `responses`."""

import sys
from typing import Literal

import litellm
from pydantic import BaseModel

scenario, url = sys.argv[1:]
asked = {"model": "openai/tiny", "api_base": url, "api_key": "none"}
messages = [{"role": "user", "content": "When does the gate open?"}]


class Answer(BaseModel):
    answer: Literal["six", "seven"]


if scenario == "chat":
    assert litellm.completion(messages=messages, **asked).choices[0].message.content
elif scenario == "stream":
    assert list(litellm.completion(messages=messages, stream=True, **asked))
elif scenario == "json":
    assert litellm.completion(messages=messages, response_format=Answer, **asked).choices[0].message.content
elif scenario == "responses":
    assert litellm.responses(input="When does the gate open?", **asked).output
elif scenario == "responses-stream":
    assert list(litellm.responses(input="When does the gate open?", stream=True, **asked))
else:
    sys.exit(64)
