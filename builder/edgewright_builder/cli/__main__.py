"""`python -m edgewright_builder.cli`, where the console script is not on the path."""

from edgewright_builder.cli.main import main

main()
