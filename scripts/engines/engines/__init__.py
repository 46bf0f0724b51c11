"""Docker Engines and registries for tests, demo and benchmarks."""
