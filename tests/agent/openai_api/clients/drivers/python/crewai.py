"""CrewAI's LLM and one crew of one agent."""

import os
import sys

os.environ |= {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "OTEL_SDK_DISABLED": "true",
    "CREWAI_TRACING_ENABLED": "false",
}

from crewai import LLM, Agent, Crew, Task

scenario, url = sys.argv[1:]


def model(**options):
    return LLM(model="openai/tiny", base_url=url, api_key="none", **options)


if scenario == "chat":
    assert model().call("When does the gate open?")
elif scenario == "stream":
    assert model(stream=True).call("When does the gate open?")
elif scenario == "crew":
    agent = Agent(role="guard", goal="answer", backstory="You guard the gate.", llm=model())
    task = Task(description="When does the gate open?", expected_output="an hour", agent=agent)
    assert Crew(agents=[agent], tasks=[task]).kickoff().raw
else:
    sys.exit(64)
