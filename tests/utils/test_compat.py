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


def test_product_of_codes_is_exact() -> None:
    """Codes are 0 and 1. Sums of larger bytes saturate on processors without VNNI."""
    codes = (torch.rand(32, 5000) < 0.9).to(torch.int8)

    assert torch.equal(compat.int8_matmul(codes, codes.T), codes.int() @ codes.int().T)


def test_leaves_of_nested_arguments() -> None:
    assert compat.tree_leaves([1, (2, {"a": [3]})]) == [1, 2, 3]


def test_version_counts_changes_in_place() -> None:
    tensor = torch.zeros(2)
    before = compat.version_of(tensor)
    tensor.add_(1)

    assert compat.version_of(tensor) == before + 1


def test_hooks_of_both_kinds_are_seen() -> None:
    module = nn.Identity()
    assert not compat.has_hooks(module)
    for add in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = add(lambda *_: None)
        assert compat.has_hooks(module)
        handle.remove()


def test_tables_of_a_module_are_its_own() -> None:
    norm = nn.BatchNorm2d(2, affine=False)
    compat.own_buffers(norm)["running_mean"] = None

    assert norm.running_mean is None and not list(norm.parameters())
    assert compat.own_parameters(norm) == {"weight": None, "bias": None}
    assert {compat.CHILDREN, *compat.OWN_TENSORS} <= vars(norm).keys()


@pytest.mark.slow  # loads the compiler
def test_compiled_network_is_unwrapped() -> None:
    inner = nn.Linear(2, 3)

    assert compat.uncompiled(torch.compile(inner)) is inner and compat.uncompiled(inner) is None
