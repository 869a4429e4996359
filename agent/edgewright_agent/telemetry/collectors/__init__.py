"""Collectors: each file reads one source of the board."""
