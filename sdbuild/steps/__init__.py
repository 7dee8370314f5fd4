"""Stages, one file each. What a stage's module holds: `sdbuild.step.stage`."""

PACKAGE_CODE = (
    "mil/package.py", "mil/decode.py", "mil/encode.py", "mil/proto.py", "mil/program.py",
    "mil/blob.py", "mil/dtype.py",
)
"""The code that reads and writes packages, which every stage after trace declares."""
