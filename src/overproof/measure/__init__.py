"""Numbers: pure functions on arrays and counts, each with its source. Import the module that you need."""
