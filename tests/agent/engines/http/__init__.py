"""The HTTP between agent and engine."""
