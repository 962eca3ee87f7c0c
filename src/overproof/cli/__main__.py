"""`python -m overproof.cli` is `overproof`."""

from overproof.cli import main

main()
