"""Stages, one file each. What a stage is: `sdbuild.engine.stage`."""
