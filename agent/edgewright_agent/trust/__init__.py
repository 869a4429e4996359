"""Whose releases this board runs: its own copy of the trust document, and the time it is judged by."""

from edgewright_agent.trust.board_trust import Trust

__all__ = ["Trust"]
