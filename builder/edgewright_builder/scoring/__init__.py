"""Log-likelihoods of given texts under a model on this machine."""
