"""Kringle: from a pile of source code to a released code model, and the evidence for every choice on the way."""

__version__ = "0.1.0"
