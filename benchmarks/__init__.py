"""Benchmarks: `fedprune bench NAME` from a checkout, each ending in one JSON line. They are no part of the wheel.

Every file with `add_arguments` and `run` is a benchmark; the first line of its docstring is what `--help` prints.
"""
