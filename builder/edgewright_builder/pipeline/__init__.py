"""The pipelines: a model from a recipe, and an adapter from a recipe."""
