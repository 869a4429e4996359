"""The engine that serves, started on the build host."""
