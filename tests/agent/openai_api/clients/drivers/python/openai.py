"""The official package: chat, stream, JSON output by `parse`, and Responses."""

import sys
from typing import Literal

from openai import OpenAI
from pydantic import BaseModel

scenario, url = sys.argv[1:]
client = OpenAI(base_url=url, api_key="none")
messages = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "When does the gate open?"},
]


class Answer(BaseModel):
    answer: Literal["six", "seven"]


if scenario == "chat":
    assert client.chat.completions.create(model="tiny", messages=messages).choices[0].message.content
elif scenario == "stream":
    stream = client.chat.completions.create(
        model="tiny", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    assert list(stream)
elif scenario == "json":
    parsed = client.chat.completions.parse(model="tiny", messages=messages, response_format=Answer)
    assert parsed.choices[0].message.parsed
elif scenario == "tools":
    function = {"name": "clock", "parameters": {"type": "object", "properties": {}}}
    client.chat.completions.create(
        model="tiny", messages=messages, tools=[{"type": "function", "function": function}]
    )
elif scenario == "responses":
    assert client.responses.create(model="tiny", input="When does the gate open?").output_text
elif scenario == "responses-stream":
    with client.responses.stream(model="tiny", input=messages) as events:
        assert list(events)
        assert events.get_final_response().output_text
elif scenario == "responses-tools":
    clock = {
        "type": "function",
        "name": "clock",
        "parameters": {"type": "object", "properties": {}},
        "strict": False,
    }
    client.responses.create(model="tiny", input="What time is it?", tools=[clock])
elif scenario == "responses-json":
    parsed = client.responses.parse(model="tiny", input=messages, text_format=Answer)
    assert parsed.output_parsed
else:
    sys.exit(64)
