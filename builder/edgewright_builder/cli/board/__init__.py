"""Commands that talk to boards."""
