"""What config.json says of a model: its family, and the features that an engine must compute."""
