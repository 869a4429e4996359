"""A board that is not there: Debian for arm64 under QEMU, made from packages alone."""
