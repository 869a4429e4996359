"""How two tokenizers write the same text: shared tokens, common boundaries, and what share of the data they compare."""
