"""The agent's own process: threads, systemd, the allocator, TLS, the memory budget, unexpected failures."""
