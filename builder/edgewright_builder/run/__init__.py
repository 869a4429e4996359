"""A run: one execution of a recipe, its folder, its stages and its progress."""
