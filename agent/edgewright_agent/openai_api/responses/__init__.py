"""`/v1/responses`: OpenAI's Responses API for text, translated to and from the engine's chat completions."""
