"""dspy with its default adapter, streaming, and its JSON adapter."""

import asyncio
import contextlib
import sys

import dspy

scenario, url = sys.argv[1:]


def model(**options):
    return dspy.LM("openai/tiny", api_base=url, api_key="none", cache=False, **options)


class Gate(dspy.Signature):
    """Answer briefly."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


question = "When does the gate open?"
if scenario == "chat":
    assert model()(question)
elif scenario == "json":
    dspy.configure(lm=model(), adapter=dspy.JSONAdapter())
    assert dspy.Predict(Gate)(question=question).answer
elif scenario == "stream":
    dspy.configure(lm=model())

    async def main():
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        program = dspy.streamify(dspy.Predict(Gate), stream_listeners=[listener])
        with contextlib.suppress(Exception):  # the recording's answer is no dspy form
            return [value async for value in program(question=question)]

    asyncio.run(main())
elif scenario == "responses":
    assert model(model_type="responses")(question)
else:
    sys.exit(64)
