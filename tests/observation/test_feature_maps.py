"""Which outputs are maps of the image, and how deep modules lie, by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import toys

from diswot.observation.feature_maps import as_map, block_depths


@pytest.mark.parametrize(
    ("output", "image", "expected"),
    [
        ((2, 5, 8, 8), (8, 8), (5, 8, 8)),
        ((2, 5, 1, 1), (8, 8), (5, 1, 1)),
        ((2, 5, 9, 9), (8, 8), None),  # larger than the image
        ((2, 5, 8, 2), (8, 8), None),  # of another shape
        ((2, 5, 4, 2), (16, 8), (5, 4, 2)),
        ((2, 5, 1, 4), (16, 8), None),
        ((2, 5, 4, 7), (9, 16), (5, 4, 7)),  # 4 * 16 = 64 against 7 * 9 = 63
        ((2, 4, 4, 5), (8, 8), (5, 4, 4)),  # channels last
        ((2, 4, 4, 4), (8, 8), (4, 4, 4)),  # either way; channels first
        ((2, 16, 5), (8, 8), (5, 4, 4)),  # tokens
        ((2, 17, 5), (8, 8), (5, 4, 4)),  # with a class token
        ((2, 21, 5), (8, 8), (5, 4, 4)),  # with five before the grid
        ((2, 22, 5), (8, 8), None),  # with six
        ((2, 8, 5), (16, 8), (5, 4, 2)),
        ((2, 1, 5), (8, 8), (5, 1, 1)),
        ((2, 5), (8, 8), None),
        ((2, 5, 4, 4, 4), (8, 8), None),
    ],
)
def test_outputs_that_are_maps(
    output: Sequence[int], image: tuple[int, int], expected: tuple[int, ...] | None
) -> None:
    found = as_map(torch.zeros(*output), image)
    shape = None if found is None else tuple(found.shape)[1:]
    assert shape == expected and (found is None or len(found) == 2)


def test_tokens_lie_row_by_row_after_the_class_token() -> None:
    tokens = torch.arange(5.0)[None, :, None]
    found = as_map(tokens, (8, 8))
    assert found is not None and found.tolist() == [[[[1, 2], [3, 4]]]]


def test_blocks_of_containers_lie_as_deep_as_each_other() -> None:
    """The stem has no blocks; the list of stages does, so that what is in it lies no deeper."""
    model = toys.StemAndStages()
    depths = block_depths(dict(model.named_modules()))

    names = ("stem", "stem.0", "stages", "stages.0", "stages.0.expand", "stages.0.expand.0")
    assert [depths[name] for name in names] == [0, 1, 0, 0, 1, 2]
