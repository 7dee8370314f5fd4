RUNS = "SDBUILD_TEST_RUNS"
"""The variable that names the file in which each run of a stage is noted."""

VERSION = "SDBUILD_TEST_VERSION"
"""The variable with the version of `convert` on a machine."""

PATIENCE = "SDBUILD_TEST_PATIENCE"
"""The variable with the seconds that a step waits for a worker that it fits."""
