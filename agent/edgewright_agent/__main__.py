"""`python -m edgewright_agent`, where the console script is not on the path."""

from edgewright_agent.cli import main

if __name__ == "__main__":
    main()
