"""The sampling engine: key-value cache, continuous batching, token selection, stop strings, prompts."""
