"""Recipes: what a user asks for, read from YAML and validated."""
