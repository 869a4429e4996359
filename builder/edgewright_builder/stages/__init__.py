"""The pipeline, one file per stage, in the order of `pipeline.py`: each a function from typed inputs to a folder."""
