"""Edgewright's public interface, and what host, board and profiles agree upon: errors, sizes, manifest, trust."""

__version__ = "0.1.0"
