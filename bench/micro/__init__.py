"""Benchmarks of the parts, with pytest-benchmark."""
