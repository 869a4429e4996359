"""Requests before the model sees them: bounded, parsed, rendered and tokenized, beside the event loop."""
