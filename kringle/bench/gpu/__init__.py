"""Benchmarks on a GPU, which `kringle bench train` and `kringle bench generate` run where one is at hand."""
