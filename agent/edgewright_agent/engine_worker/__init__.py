"""The engine's own process: OpenAI-compatible HTTP on a Unix socket over ONNX Runtime or the fake.

Started by `edgewright_agent.engines`, possibly with another interpreter; it imports nothing of the agent, so
that the process holds the model and little else.
"""
