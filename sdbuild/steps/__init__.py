"""Stages, one file each. What a stage's module holds: `sdbuild.engine.step.stage`."""
