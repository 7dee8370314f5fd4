RUNS = "SDBUILD_TEST_RUNS"
"""The variable that names the file in which each run of a stage is noted."""

VERSION = "SDBUILD_TEST_VERSION"
"""The variable with the version of `convert` on a machine."""
