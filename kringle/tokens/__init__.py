"""Text to numbers: the tokenizer that all arms share, the encoder, and the memory-mapped token store."""
