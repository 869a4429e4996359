"""A board's answers, laid out for people."""
