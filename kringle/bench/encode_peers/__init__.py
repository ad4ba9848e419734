"""What the benchmark `encode` runs in its peers' environments; each is a script that needs the peer alone."""
