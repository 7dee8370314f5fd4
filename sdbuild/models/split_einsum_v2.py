"""`attention=split_einsum_v2`: as `split_einsum`, and a block of queries at a time.

The scores of a head are then (B, S_k, 1, 512) and not (B, S_k, 1, S_q), of which a picture of
512×512 has 32 MB each in its first transformers.
"""

from __future__ import annotations

from sdbuild.models import split_einsum
from sdbuild.models.conditioned import Conditioned

QUERY_BLOCK = 512
"""Queries at a time. Source: `CHUNK_SIZE` in apple/ml-stable-diffusion at e12202c,
`attention.py`; its last queries are lost where 512 does not divide their number, ours are a
smaller block."""


def lay_out(network: Conditioned) -> Conditioned:
    """Returns the same network, with split transformers that took over its parameters.

    Raises:
        SourceError: its transformers have parts that this layout does not know.
    """
    return split_einsum.lay_out(network, QUERY_BLOCK)
