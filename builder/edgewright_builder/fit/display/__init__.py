"""How answers of `check` and `plan` are shown: on a terminal, as JSON, as a matrix."""
