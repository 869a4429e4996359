"""Export: a quantized checkpoint becomes the files an engine loads."""
