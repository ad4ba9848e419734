"""The transformer, its fast path on CPUs, and its exchange with `transformers`."""
