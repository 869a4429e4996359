"""The OpenAI door: what the engine's own HTTP can, behind the gate and the meter that gRPC has too.

Nothing here is imported unless the door is asked for, `settings` excepted.
"""
