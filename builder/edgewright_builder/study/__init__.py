"""Studies: many builds that differ in a few keys of one recipe, and what their differences show."""
