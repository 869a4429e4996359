"""An engine as an operating-system process: start, limits, memory, death."""
