"""Where a text comes from: every stretch of it that occurs in the training data, with file, repository and licence."""
