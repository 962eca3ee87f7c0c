"""`python -m benchmarks.proof` runs every proof."""

import sys

from benchmarks.proof.prove import main

if __name__ == "__main__":
    sys.exit(main())
