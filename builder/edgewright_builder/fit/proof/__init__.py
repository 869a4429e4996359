"""Says which configurations were proved equal to transformers, and by which figures. `parity` runs the proofs."""
