"""From a torch graph to an ML Program: lowered once per architecture, bound to many checkpoints.

`coreml.py` is the door to coremltools' converter. `once.py` lowers a graph with the stand-ins of
`standins.py` for weights, while `recording.py` has coremltools do without their bulk, by replacing
functions of it (`patched.py`); `place.py` finds where each stand-in went. `bind.py` puts a
checkpoint's tensors there, by streaming.
"""
