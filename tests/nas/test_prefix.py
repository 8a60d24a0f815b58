"""What candidates that begin alike share: fewer passes, the same scores to the last bit."""

from __future__ import annotations

import random
from functools import partial

import pytest
import toys
import toyspaces
from torch import nn

from diswot.nas.prefix import Chain
from diswot.proxies.scorer import scorer
from diswot.spaces.cifar_resnet import BasicBlock, CifarResNet
from diswot.spaces.registry import build_network, create_space

PROXIES = ["diswot", "semantic", "relation", "kd"]
BLOCKS = [(a, b, c) for a in (1, 3) for b in (1, 3, 5) for c in (1, 3, 5, 7)]


@pytest.mark.parametrize("init", ["gaussian", "kaiming", "default"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_scores_are_those_of_one_by_one(
    init: str, shuffled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, master = create_space("s0", toys.CLASSES), CifarResNet((1, 1, 1), toys.CLASSES)
    fixed, chain = scorer(master, [toyspaces.batch(4)], init=init, seed=2), Chain()
    order = random.Random(0).sample(BLOCKS, len(BLOCKS)) if shuffled else BLOCKS
    ran: list[nn.Module] = []
    run = BasicBlock.forward
    monkeypatch.setattr(BasicBlock, "forward", lambda self, x: ran.append(self) or run(self, x))
    counts = [0, 0]

    for blocks in order:
        params = {f"blocks{i + 1}": count for i, count in enumerate(blocks)}
        build = partial(build_network, space, params)
        ran.clear()
        alone = fixed.score(fixed.students(build), PROXIES)
        counts[0] += len(ran)
        ran.clear()
        shared = fixed.score([chain.through(fixed.fresh(build))], PROXIES)
        counts[1] += len(ran)
        assert shared == alone

    assert counts[0] == sum(map(sum, BLOCKS))
    assert counts[1] < counts[0]
    if not shuffled:  # by hand: 3 in stage 1, 5 for each of its 2 lengths, 7 for each of the 6 then
        assert counts[1] == 3 + 2 * 5 + 6 * 7


def test_changed_images_weights_or_maps_are_not_reused() -> None:
    model = partial(CifarResNet, (1, 1, 1), toys.CLASSES)
    chain, images = Chain(), toyspaces.batch(4).images
    fixed = scorer(model(), [toyspaces.batch(4)])
    first = chain.through(fixed.fresh(model)).eval()
    first(images)
    again = fixed.fresh(model).eval()
    again.layer1[0].conv1.weight.data[0, 0, 0, 0] += 1
    expected = again(images * 2)

    assert (chain.through(again)(images * 2) == expected).all()


def test_network_without_a_chain_is_left_alone() -> None:
    model = nn.Linear(2, 2)

    assert Chain().through(model) is model and "forward" not in vars(model)
