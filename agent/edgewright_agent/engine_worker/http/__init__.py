"""The worker's HTTP: requests in, answers out."""
