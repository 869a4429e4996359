"""Models as files: where they come from, how they are loaded, and what families do differently."""
