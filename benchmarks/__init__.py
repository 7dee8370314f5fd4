"""Measurements: each a command, each against an alternative in the same run."""
