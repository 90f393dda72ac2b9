"""Which tensors the Triton forms take; the others go to the PyTorch forms."""

import pytest
import torch
from torch import Tensor

from headwise.kernels import (
    attention_stats,
    differential_combine,
    gathered_heads,
    neighbourhood,
    pair_attention,
    ragged_attention,
    ragged_decode,
    signed_root_attention,
)


def head(width: int, dtype: torch.dtype = torch.float32, queries: int = 4) -> Tensor:
    return torch.empty(1, 1, queries, width, dtype=dtype)


def rows(queries: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(1, queries, width, dtype=dtype)


HALF, DOUBLE = torch.bfloat16, torch.float64


@pytest.mark.parametrize(
    ("fits", "inside", "outside"),
    [
        (ragged_attention.fits, (head(64), head(8)), (head(8), head(65))),
        (ragged_attention.fits, (head(256, HALF), head(8, HALF)), (head(8, DOUBLE),) * 2),
        (ragged_decode.fits, (head(128), head(8)), (head(8), head(129))),
        (pair_attention.fits, (head(8), head(128)), (head(129), head(8))),
        (pair_attention.fits, (head(256, HALF),) * 2, (head(257, HALF),) * 2),
        (attention_stats.fits, (head(128), None, 16), (head(128), None, 17)),
        (attention_stats.fits, (head(8, HALF), head(256, HALF), 0), (head(8), head(129), 0)),
        (neighbourhood.fits, (head(128, HALF),), (head(129, HALF),)),
        (signed_root_attention.fits, (rows(8, 8),) * 3, (rows(8, 9),) * 3),
        (signed_root_attention.fits, (rows(8, 8, HALF),) * 3, (rows(8, 8, DOUBLE),) * 3),
        (signed_root_attention.fits, (rows(8, 128),) * 3, (rows(4200, 4300),) * 3),
        (differential_combine.fits, (rows(4, 4),), (rows(4, 4, DOUBLE),)),
        (gathered_heads.fits, (head(8, HALF),), (head(8, DOUBLE),)),
    ],
)
def test_limits_of_the_triton_forms(fits, inside, outside) -> None:
    assert fits(*inside)
    assert not fits(*outside)
