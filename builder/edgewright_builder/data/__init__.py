"""Task data: Self-Instruct with a rubric, or a file of one's own, to Alpaca rows."""
