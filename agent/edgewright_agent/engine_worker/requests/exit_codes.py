"""How the worker's process ends, for whoever started it. Imports nothing."""

ENDED_BY_REQUEST = (
    75  # a request could neither be prepared in time nor interrupted; the last line says which part
)
