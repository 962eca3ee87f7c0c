"""Personal data and secrets: found by pattern and checksum, replaced before anything is written."""
