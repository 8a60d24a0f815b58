"""Which maps end a stage, and what a pass with hooks records, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import toys
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.observation import hooks
from diswot.observation.hooks import LinearHead, Trace, describe, run

LEARNS, PLAIN, POOL = nn.Conv2d(1, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)


# Which maps end stages


def see(trace: Trace, name: str, size: int, depth: int, module: nn.Module, entering: int) -> None:
    """An output of size x size of a module at a depth, whose input was entering x entering."""
    trace.add_map(
        name, module, depth, torch.zeros(2, 3, entering, entering), torch.zeros(2, 3, size, size)
    )


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        ([("a", 8, 0), ("b", 4, 0), ("c", 2, 0)], "abc"),
        ([("a", 8, 0), ("b", 8, 0), ("c", 4, 0)], "bc"),  # the later of one resolution
        ([("a", 8, 1), ("b", 8, 0), ("c", 8, 1)], "b"),  # the outermost of one resolution
        ([("a", 8, 0), ("b", 4, 1), ("c", 8, 0)], "c"),  # a side branch is dropped
        ([("a", 8, 0), ("b", 4, 0), ("c", 8, 1)], "ab"),  # a larger one that lies deeper is one
        ([("a", 8, 0), ("b", 2, 1), ("c", 4, 1), ("d", 4, 0)], "ad"),
        ([("a", 8, 0), ("b", 4, 0), ("c", 16, 0)], "c"),
    ],
)
def test_stages_shrink(seen: list[tuple[str, int, int]], kept: str) -> None:
    trace = Trace((16, 16), copy=False)
    for name, size, depth in seen:
        see(trace, name, size, depth, LEARNS, 16)

    assert [each.name for each in trace.stage_maps] == list(kept)
    sizes = {name: size for name, size, _ in seen}
    assert [each.shape[2] for each in trace.stages("fc")] == [sizes[name] for name in kept]


@pytest.mark.parametrize(
    ("module", "entering", "pooled"),
    [
        (POOL, 4, True),
        (nn.AdaptiveMaxPool2d(1), 4, True),
        (nn.MaxPool2d(4), 4, False),  # a local maximum that happens to leave one
        (nn.Conv2d(3, 3, 4), 4, False),
        (LEARNS, 1, True),  # a convolution of what was pooled by a function
    ],
)
def test_maps_of_one_cell_may_come_from_pooling(
    module: nn.Module, entering: int, pooled: bool
) -> None:
    trace = Trace((8, 8), copy=False)
    see(trace, "a", 4, 0, LEARNS, 8)
    see(trace, "b", 1, 0, module, entering)

    assert [each.after_pooling for each in trace.stage_maps] == [False, pooled]
    assert len(trace.stages("fc")) == 2 - pooled


def test_pooling_of_a_map_of_one_cell_leaves_it_the_last_stage() -> None:
    trace = Trace((8, 8), copy=False)
    see(trace, "a", 4, 0, LEARNS, 8)
    see(trace, "b", 1, 0, LEARNS, 4)
    see(trace, "pool", 1, 0, POOL, 1)

    assert [each.name for each in trace.stage_maps if not each.after_pooling] == ["a", "b"]


def test_grid_that_pooling_enlarged_is_no_stage() -> None:
    trace = Trace((8, 8), copy=False)
    see(trace, "a", 2, 0, LEARNS, 8)
    see(trace, "pool", 4, 0, nn.AdaptiveAvgPool2d(4), 2)
    see(trace, "up", 4, 0, nn.ConvTranspose2d(3, 3, 2, 2), 2)

    assert [each.name for each in trace.stage_maps] == ["up"]  # it learns, so it is one


def test_what_enters_a_convolution_that_classifies_ends_the_last_stage() -> None:
    trace = Trace((8, 8), copy=False)
    see(trace, "a", 4, 0, LEARNS, 8)
    see(trace, "scores", 2, 0, LEARNS, 2)
    entering = torch.ones(2, 7, 2, 2)
    trace.last_convolution = "scores", entering

    assert trace.stages("scores")[1] is entering
    assert trace.stages("fc")[1].shape[1] == 3
    trace.last_convolution = "scores", torch.ones(2, 7, 5, 5)  # of another grid
    assert trace.stages("scores")[1].shape[1] == 3


@pytest.mark.parametrize("copy", [False, True])
def test_map_that_is_written_over_is_noticed_or_copied(copy: bool) -> None:
    trace, output = Trace((8, 8), copy), torch.zeros(2, 3, 4, 4)
    trace.add_map("a", LEARNS, 0, torch.zeros(2, 3, 8, 8), output)
    trace.add_named("b", output)
    assert not trace.overwritten()

    output.add_(1)

    assert trace.overwritten() != copy
    assert float(trace.stage_maps[0].map.sum()) == (0 if copy else 96)


def test_pooled_map_may_be_written_over() -> None:
    trace, output = Trace((8, 8), copy=False), torch.zeros(2, 3, 1, 1)
    see(trace, "a", 4, 0, LEARNS, 8)
    trace.add_map("pool", POOL, 0, torch.zeros(2, 3, 4, 4), output)

    output.add_(1)

    assert not trace.overwritten()


@pytest.mark.parametrize(
    ("after", "gives"),
    [
        (lambda z: z, True),
        (lambda z: z.view_as(z), True),
        (lambda z: z * 1, False),
        (lambda z: z.mul_(2), False),
        (lambda z: z[:, :2], False),
    ],
)
def test_head_gives_the_logits_untouched(after: Callable[[Tensor], Tensor], gives: bool) -> None:
    output = torch.ones(2, 3)
    head = LinearHead(nn.Linear(4, 3), torch.ones(2, 4), output, output._version)

    assert head.gives(after(output)) == gives


# The pass


def test_pass_keeps_layers_in_the_order_they_ran() -> None:
    seen = run(toys.seeded(toys.LinearHead), toys.batch()[0], {"stages": ["block1.0"]})

    assert list(seen.weighted) == ["block1.0", "block2.0", "fc"]
    assert list(seen.heads) == ["fc"] and list(seen.named) == ["block1.0"]
    assert seen.last_convolution is not None and seen.last_convolution[0] == "block2.0"
    assert [(s.name, s.depth, tuple(s.map.shape)) for s in seen.stage_maps] == [
        ("block1", 0, (6, 4, 8, 8)),
        ("block2", 0, (6, 6, 4, 4)),
        ("pool", 0, (6, 6, 1, 1)),
    ]
    assert seen.logits is not None and seen.heads["fc"].gives(seen.logits)


def count_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("toy", [toys.LinearHead, toys.Broken])
def test_hooks_are_gone_afterwards(toy: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model, most = toys.seeded(toy), 0

    def counted(module: nn.Module, inputs: object) -> None:
        nonlocal most
        most = count_hooks(model)

    model.register_forward_pre_hook(counted)
    if toy is toys.Broken:
        with pytest.raises(RuntimeError, match="broken half-way"):
            run(model, toys.batch()[0], {})
    else:
        run(model, toys.batch()[0], {})

    assert most == len(list(model.modules())) - 1 and count_hooks(model) == 0


def test_hooks_are_gone_when_one_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = toys.seeded(toys.LinearHead), hooks._hook

    def failing(seen: Trace, name: str, *more: object) -> object:
        if name == "fc":
            raise MemoryError
        return made(seen, name, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(hooks, "_hook", failing)
    with pytest.raises(MemoryError):
        run(model, toys.batch()[0], {})

    assert count_hooks(model) == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.zeros(2, 3), "a float32 tensor (2, 3)"),
        (torch.zeros(4, dtype=torch.long), "a int64 tensor (4,)"),
        ([1], "a list"),
        (None, "a NoneType"),
    ],
)
def test_values_are_described(value: object, expected: str) -> None:
    assert describe(value) == expected


def test_name_of_nothing_is_told_before_the_model_runs() -> None:
    with pytest.raises(UserError, match="unknown layer 'block3'; did you mean block2 or block1"):
        run(toys.Broken(), toys.batch()[0], {"last": "block3"})
