"""What the agent and an engine have to do with each other: requests, a running engine, and how one is launched."""
