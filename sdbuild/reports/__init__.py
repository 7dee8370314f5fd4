"""Read records and bundles, and make nothing: why, history, find, du, verify, gc, check."""
