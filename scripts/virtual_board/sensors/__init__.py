"""The kernel's own drivers of power sensors, on chips that i2c-stub pretends: registers move, and the agent reads."""
