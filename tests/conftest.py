"""Makes `strategies` importable from every folder of tests."""
