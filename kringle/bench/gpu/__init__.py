"""Benchmarks on a GPU, which the benchmark of the same name runs where there is one."""
