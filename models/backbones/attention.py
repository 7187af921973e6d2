"""Attention over tokens, shared by the vision transformers."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of (N, T, W) tokens in `heads` equal parts, put end to end again as (N, T, W)."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
