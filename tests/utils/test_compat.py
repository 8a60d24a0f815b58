from __future__ import annotations

import pytest
import torch
from torch import nn

from diswot.utils import compat


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), nn.InstanceNorm2d(2)]
)
def test_norms_with_running_statistics_share_a_base(norm: nn.Module) -> None:
    assert isinstance(norm, compat.BatchNormBase)
    assert not isinstance(nn.GroupNorm(1, 2), compat.BatchNormBase)


def test_product_of_bytes_is_exact() -> None:
    one = torch.randint(-128, 128, (32, 16), dtype=torch.int8)

    assert torch.equal(compat.int8_matmul(one, one.T), one.int() @ one.int().T)


def test_leaves_of_nested_arguments() -> None:
    assert compat.tree_leaves([1, (2, {"a": [3]})]) == [1, 2, 3]
