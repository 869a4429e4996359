#!/usr/bin/env bash
# mistral-common 1.13.1 rewrites what a tool answered: the version 1.10 reaches the model as 1.1.
#
# A tool's answer is text. For Mistral's formats v2 and v3 (7B v0.3, Mixtral 8x22B; Nemo too) the text is put into JSON, and
# mistral-common first parses it as JSON itself. What happens to be a number is thereby computed: "1.10" becomes 1.1,
# "12345678901234567890.5" becomes 1.2345678901234567e+19, "1e3" becomes 1000.0; of an object with the same key twice one
# value is left. "007" is no JSON and stays a string, so like answers of one tool differ in kind. The arguments of earlier
# calls go the same way. No warning; the request that was given still holds the text. The chat template that Mistral
# published with 7B v0.3 writes the text as it is, and so does this library from v7 on. A docstring calls it "a bit of a
# hack due to the way tool results are tokenized". Quote such answers: "\"1.10\"" stays.
#
# Seen on CPython 3.11, Linux x86-64, with the vocabularies inside the package. Fails if that changes. Output seen:
#   v2: 1.10 -> 1.1, 12345678901234567890.5 -> 1.2345678901234567e+19, 1e3 -> 1000.0, 007 -> "007", "1.10" -> "1.10"
#   v3: 1.10 -> 1.1, 12345678901234567890.5 -> 1.2345678901234567e+19, 1e3 -> 1000.0, 007 -> "007", "1.10" -> "1.10"
#   v7: 1.10 -> 1.10, 12345678901234567890.5 -> 12345678901234567890.5, 1e3 -> 1e3, 007 -> 007, "1.10" -> "1.10"
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mistral-common==1.13.1 sentencepiece==0.2.3
cd "$folder"
venv/bin/python - > seen 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
import re

from mistral_common.protocol.instruct.messages import AssistantMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall, Tool, ToolCall
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

ANSWERS = ["1.10", "12345678901234567890.5", "1e3", "007", '"1.10"']
CALL = "123456789"
nothing = {"type": "object", "properties": {}}
tool = Tool(function=Function(name="version", description="The newest version.", parameters=nothing))
call = ToolCall(id=CALL, function=FunctionCall(name="version", arguments="{}"))


def read_by_the_model(tokenizer, answer):
    request = ChatCompletionRequest(
        messages=[
            UserMessage(content="Which version is the newest?"),
            AssistantMessage(content=None, tool_calls=[call]),
            ToolMessage(tool_call_id=CALL, name="version", content=answer),
        ],
        tools=[tool],
    )
    prompt = tokenizer.encode_chat_completion(request).text.replace("▁", " ")
    assert request.messages[-1].content == answer
    result = prompt.split("[TOOL_RESULTS]")[1].split("[/TOOL_RESULTS]")[0]
    return re.search(r'(?:"content": |\[TOOL_CONTENT\] ?)(.*?)(?:, "call_id".*)?(?:\}\]?)?$', result)[1]


for name in "v2", "v3", "v7":
    tokenizer = getattr(MistralTokenizer, name)()
    print(f"{name}:", ", ".join(f"{answer} -> {read_by_the_model(tokenizer, answer)}" for answer in ANSWERS))
PY
cat seen
cat > expected <<'TEXT'
v2: 1.10 -> 1.1, 12345678901234567890.5 -> 1.2345678901234567e+19, 1e3 -> 1000.0, 007 -> "007", "1.10" -> "1.10"
v3: 1.10 -> 1.1, 12345678901234567890.5 -> 1.2345678901234567e+19, 1e3 -> 1000.0, 007 -> "007", "1.10" -> "1.10"
v7: 1.10 -> 1.10, 12345678901234567890.5 -> 12345678901234567890.5, 1e3 -> 1e3, 007 -> 007, "1.10" -> "1.10"
TEXT
cmp -s seen expected || { echo "changed: the lines above are not those seen" >&2; exit 1; }
