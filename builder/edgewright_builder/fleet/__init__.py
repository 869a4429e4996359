"""One artifact for many boards: the inventory, the waves, the journal, and the rollout that follows them."""
