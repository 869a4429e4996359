"""The agent's own process: threads, systemd, the allocator, TLS, unexpected failures."""
