"""Attention in one operation."""

from __future__ import annotations

from torch.nn import functional as F

from sdbuild.mil.execute.ops._types import Any_, T


def scaled_dot_product_attention(query: T, key: T, value: T, attn_mask: Any_ | None = None) -> T:
    return F.scaled_dot_product_attention(query, key, value, attn_mask)
