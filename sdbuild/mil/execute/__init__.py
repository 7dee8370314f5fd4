"""The portable executor: ML Programs run with torch on the CPU. Operations are in `ops/`."""
