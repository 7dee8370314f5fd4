"""Makes `operations` importable from the folder of families."""
