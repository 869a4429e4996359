"""Version 1 of the wire contract: deployment, inference, telemetry, trust."""
