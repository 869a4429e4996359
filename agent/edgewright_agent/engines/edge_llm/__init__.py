"""TensorRT Edge-LLM: whether the installed wheel fits the board. The agent does not serve with it yet."""
