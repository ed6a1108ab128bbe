"""Benchmarks of the library against baselines and other libraries: ``python -m benchmarks``; see `README.md`."""
