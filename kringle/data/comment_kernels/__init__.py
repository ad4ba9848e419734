"""Comments found by compiled scanners that say when they cannot be sure; the exact, slow way is then taken instead."""
