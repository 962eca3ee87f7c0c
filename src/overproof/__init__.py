"""overproof: a small model of your own from a large model's traffic, proven before and while it serves."""

__version__ = "0.1.0"
