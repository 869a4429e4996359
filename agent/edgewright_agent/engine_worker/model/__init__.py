"""The model in ONNX Runtime: graph, weights, adapters, sampling, grammar, tokenizer."""
