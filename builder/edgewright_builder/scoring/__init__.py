"""Log-likelihoods of given texts under a local model."""
