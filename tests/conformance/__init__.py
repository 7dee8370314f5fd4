"""coremltools' own operation tests, with the portable executor in the place of Core ML."""
