"""Has every Python that finds it take the small stages of `tests/cluster/stages.py` for the real.

It comes first in `PYTHONPATH` of schedulers, workers, clients and the processes of steps.
"""

import tests.cluster.stages  # noqa: F401
