"""The OpenAI-compatible server: the engine's HTTP API behind the admission gate and the meter that gRPC has too.

Importing `settings` is cheap; the other modules are imported once the server is asked for.
"""
