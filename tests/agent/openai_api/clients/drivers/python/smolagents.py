"""smolagents' OpenAIServerModel, alone and streamed."""

import sys

from smolagents import ChatMessage, OpenAIServerModel, ToolCallingAgent

scenario, url = sys.argv[1:]
model = OpenAIServerModel(model_id="tiny", api_base=url, api_key="none")
messages = [ChatMessage(role="user", content=[{"type": "text", "text": "When does the gate open?"}])]

if scenario == "chat":
    assert model.generate(messages, stop_sequences=["Observation:"]).content
elif scenario == "stream":
    assert list(model.generate_stream(messages))
elif scenario == "tools":
    ToolCallingAgent(tools=[], model=model, max_steps=1).run("When does the gate open?")
elif scenario == "json":
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["six", "seven"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    assert model.generate(messages, response_format=form).content
else:
    sys.exit(64)
