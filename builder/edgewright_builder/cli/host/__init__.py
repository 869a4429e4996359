"""Commands that work on this machine: before a build, the build, and what it made."""
