"""`python -m kringle`."""

from kringle.cli import main

main()
