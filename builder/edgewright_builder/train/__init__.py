"""The maths of distillation: losses, optimizers, adapters, batches. No files are read or written here."""
