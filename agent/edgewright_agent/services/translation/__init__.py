"""Translation between the agent's own values and the messages of the wire contract."""
