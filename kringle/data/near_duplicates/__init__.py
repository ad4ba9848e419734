"""Near-duplicates by MinHash: SantaCoder's two steps bit for bit, and a way that removes nothing unverified."""
