"""The stages of a build, one file each: what a stage depends on, what it leaves, and its work."""
