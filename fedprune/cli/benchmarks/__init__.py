"""Benchmarks: `fedprune bench NAME`, each ending in one JSON line."""
