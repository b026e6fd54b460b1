"""What benchmarks need of a network."""
