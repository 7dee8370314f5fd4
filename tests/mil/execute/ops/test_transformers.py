import numpy as np
import pytest

from tests.mil.operations import check, floats

Q, K, V = floats(1, 2, 3, 8), floats(1, 2, 5, 8, seed=1), floats(1, 2, 5, 6, seed=2)


def attention(added):
    scores = Q @ K.swapaxes(-1, -2) / 8**0.5 + added
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ V).astype(np.float32)


@pytest.mark.parametrize(("mask", "added"), [
    (None, 0),
    (floats(3, 5, seed=3), floats(3, 5, seed=3)),
    (np.tri(3, 5, dtype=bool), np.where(np.tri(3, 5), 0, -np.inf)),
])
def test_scaled_dot_product_attention(mask, added):
    check("scaled_dot_product_attention", attention(added), query=Q, key=K, value=V,
          attn_mask=mask)
