"""Multiple-choice tasks by log-likelihood: definitions, rows, results, accuracy."""
