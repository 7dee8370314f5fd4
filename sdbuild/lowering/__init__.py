"""From a torch graph to an ML Program: lowered once per architecture, bound to many checkpoints.

`coreml.py` is the door to coremltools' converter. `standins.py` takes the place of weights while
an architecture is lowered, and finds out where each of them went. `bind.py` puts a checkpoint's
tensors there, by streaming.
"""
