"""TensorRT Edge-LLM: an engine that the board builds from the checkpoint, and its server on a loopback port.

Read in the wheel 0.11.0 and held to a stub of it; no board has run it.
"""
