"""One file for each page: what it reads, and how it answers."""
