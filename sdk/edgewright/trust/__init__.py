"""Trust documents: which keys may sign releases, and what was revoked."""
