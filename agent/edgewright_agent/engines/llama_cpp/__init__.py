"""llama.cpp's server, which loads one GGUF file."""
