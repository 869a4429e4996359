"""GGUF: a GPTQ checkpoint in the file that llama.cpp and its kin load, code for code."""
