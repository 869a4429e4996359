"""Will it fit, and what is the best that does: facts of a model, its peak memory h(m̂), and the plan. No torch here."""
