"""What T2 said of the samples, on disk: hidden states in the student's tokens or aligned to them, or top-k answers."""
