"""Where documents come from. A source lists candidates from names and sizes alone; it reads no source code."""
