"""HTTP to an engine over its Unix socket."""
