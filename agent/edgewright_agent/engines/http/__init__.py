"""HTTP to an engine on this machine."""
