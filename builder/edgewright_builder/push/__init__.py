"""Push: an artifact reaches a board, as chunks, deltas or from a mirror."""
