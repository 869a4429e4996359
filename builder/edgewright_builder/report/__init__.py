"""What a run made and what it costs on the board: as an HTML page and as a table for the terminal."""

from edgewright_builder.report.html import write_report
from edgewright_builder.report.terminal import summary_table

__all__ = ["summary_table", "write_report"]
