"""The `llm` command and library, with a model that its extra-openai-models.yaml names."""

import os
import pathlib
import sys
import tempfile

scenario, url = sys.argv[1:]
folder = pathlib.Path(tempfile.mkdtemp())
os.environ["LLM_USER_PATH"] = str(folder)
model_file = f"- model_id: tiny\n  model_name: tiny\n  api_base: {url}\n  supports_schema: true\n"
(folder / "extra-openai-models.yaml").write_text(model_file)

import llm  # noqa: E402 - reads LLM_USER_PATH

model = llm.get_model("tiny")
model.key = "none"
if scenario == "chat":
    assert model.prompt("When does the gate open?", system="Be brief.", stream=False).text()
elif scenario == "stream":
    assert list(model.prompt("When does the gate open?"))
elif scenario == "json":
    schema = {"type": "object", "properties": {"answer": {"enum": ["six", "seven"]}}, "required": ["answer"]}
    assert model.prompt("When does the gate open?", schema=schema, stream=False).text()
else:
    sys.exit(64)
