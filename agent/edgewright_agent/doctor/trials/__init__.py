"""Programs the doctor runs in an engine's own interpreter; they import nothing of the agent."""
