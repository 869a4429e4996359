"""Whose releases this board runs: its trust document, the chain it follows, and the clock it is judged by."""

from edgewright_agent.trust.board_trust import Trust

__all__ = ["Trust"]
