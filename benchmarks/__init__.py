"""What the library costs, beside floors and peers: ``python -m benchmarks`` measures; see `README.md`."""
