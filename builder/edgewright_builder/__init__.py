"""The host's half of Edgewright: from a recipe to a signed artifact, and on to the boards."""
