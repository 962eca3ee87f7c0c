"""Engines: where shards of heavy work run, on this machine or on many."""
