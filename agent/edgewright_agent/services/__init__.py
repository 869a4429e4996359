"""The gRPC services: they translate between messages and the agent's parts, and do nothing else."""
