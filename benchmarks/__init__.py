"""Measurements; they assert nothing. Each prints ratios of interleaved runs: ``python -m benchmarks.hashing``."""
