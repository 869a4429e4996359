"""What an artifact's files may make an engine open: its own files, and nothing else."""

from edgewright_agent.deployment.contents.rules import check_contents

__all__ = ["check_contents"]
