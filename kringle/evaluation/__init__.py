"""Measures of a trained model: bits per byte beside baselines, infilling, suites of programs and their jail."""
