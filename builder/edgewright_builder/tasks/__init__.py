"""Multiple-choice tasks by log-likelihood: definitions, loading, scoring, accuracy."""
