from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import reference
import torch
import toys
import toyspaces
from torch import nn
from toyspaces import batch, teacher, tiny

from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.knowledge.semantic import EPSILON
from diswot.models.inheritance import inherit
from diswot.models.initialization import STUDENT, TEACHER, fresh
from diswot.observation.observe import Observation, observe
from diswot.proxies.default_score import WEIGHTS
from diswot.proxies.first_block import DRAWS, IMAGES
from diswot.proxies.registry import PROXIES, by_init, get_proxy
from diswot.proxies.scorer import Scorer, score, scorer
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.spaces.registry import Params, build_network, enumerate_params

SHAPE = (3, toys.PIXELS, toys.PIXELS)
PARAMS = {"width": 4, "kernel": 3, "depth": 2, "act": "relu"}
COMPARING = [name for name, row in PROXIES.items() if row.compares_observations]


def student(seed: int = 0) -> nn.Module:
    return fresh(lambda: build_network(tiny, PARAMS), "gaussian", seed)


def naive(one: Observation, other: Observation) -> dict[str, float]:
    """The two distances by their definitions, in float64."""
    gradients = [
        reference.linear_class_gradient(seen.head_input, seen.logits, seen.targets)
        for seen in (one, other)
    ]
    return {
        "semantic": reference.semantic_distance(*gradients, eps=EPSILON),
        "relation": reference.relation_distance(one.last, other.last),
    }


@pytest.mark.parametrize("seed", range(4))
def test_diswot_is_minus_both_distances(seed: int) -> None:
    images = batch(8)
    master = fresh(toys.LinearHead, "gaussian", seed, role=TEACHER)
    distances = naive(observe(master, *images), observe(student(seed), *images))

    scores = score(master, student(seed), images, ["diswot", "semantic", "relation"])

    for name, distance in distances.items():
        assert scores[name] == pytest.approx(-distance, abs=1e-5)
    assert scores["diswot"] == pytest.approx(-sum(distances.values()), abs=1e-5)
    assert scores["diswot"] == scores["semantic"] + scores["relation"]


def test_images_and_labels_as_a_pair() -> None:
    images = batch(8)
    assert type(images) is not tuple
    master = fresh(toys.LinearHead, "gaussian", 0, role=TEACHER)
    assert score(master, student(0), tuple(images)) == score(master, student(0), images)


@pytest.mark.parametrize("name", COMPARING)
def test_a_student_can_be_no_closer_than_the_teacher_itself(name: str) -> None:
    """Equal networks are the limit, which strangers stay below.

    Not so for `detail`: it is a gap, zero for all students that lack nothing, strangers too. Nor
    for `default`: mostly capacity, which a student may have more of.
    """
    master, images = student(0), batch()
    itself = score(master, copy.deepcopy(master), images, [name])[name]
    strangers = [score(master, student(seed), images, [name])[name] for seed in (1, 2, 3)]

    assert max(strangers) < itself
    assert itself == pytest.approx(0, abs=2e-3) or not name.startswith(("sem", "rel", "kd"))


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("init", ["gaussian", "kaiming"])
def test_a_copy_of_the_teacher_has_no_gap_to_it(init: str, trained: bool) -> None:
    """Nor has one of other weights: what is compared are draws, not weights of one's own."""
    batches = [batch(4), batch(5), batch(6)]
    fixed = scorer(teacher(), batches, init=init, seed=7, trained_teacher=trained)

    assert fixed.score(fixed.students(teacher), ["detail"]) == {"detail": [0, 0, 0]}
    strangers = [fresh(teacher, init, seed) for seed in range(len(batches))]
    assert fixed.score(strangers, ["detail"]) == {"detail": [0, 0, 0]}


def test_default_is_no_agreement() -> None:
    """A wider student than the teacher scores above the teacher's own copy."""
    fixed = scorer(teacher(), [batch()], init="kaiming")
    wide = lambda: build_network(tiny, PARAMS | {"width": 8, "depth": 3})  # noqa: E731

    scores = [fixed.score(fixed.students(each), ["default"])["default"] for each in (wide, teacher)]
    assert scores[0] > scores[1]


@pytest.mark.parametrize("name", ["params", "macs", "depth"])
def test_the_larger_student_has_the_larger_size(name: str) -> None:
    count = {
        "params": count_params,
        "macs": lambda model: count_macs(model, SHAPE),
        "depth": count_depth,
    }[name]
    sizes = []
    for depth in (1, 2, 3):
        model = build_network(tiny, PARAMS | {"depth": depth})
        sizes.append(score(teacher(), model, batch(), [name])[name])
        assert sizes[-1] == count(model)

    assert sizes == sorted(set(sizes))


def test_score_takes_networks_as_they_are() -> None:
    master, images = teacher(), batch()
    before = copy.deepcopy(master.state_dict())

    first = score(master, student(), images, ["diswot"])
    again = score(observe(master, *images), student(), images, ["diswot"])

    assert first == again and first.keys() == {"diswot"}
    assert score(toys.seeded(toys.LinearHead, 1), student(), images, ["diswot"]) != first
    assert score(master, student(1), images, ["diswot"]) != first
    assert score(master, student(), images) == score(master, student(), images, ["default"])
    assert all(torch.equal(value, before[name]) for name, value in master.state_dict().items())


# The scorer


@pytest.mark.parametrize("init", ["gaussian", "kaiming", "default"])
def test_scorer_is_score_with_fresh_weights(init: str) -> None:
    batches = [batch(4), batch(5)]
    fixed = scorer(teacher(), batches, init=init, seed=7)
    build = lambda: build_network(tiny, PARAMS)  # noqa: E731

    values = fixed.score(fixed.students(build), ["relation", "diswot", "params"])

    for repeat, images in enumerate(batches):
        master = fresh(teacher, init, 7, repeat, TEACHER)
        if init == "default":  # the copy of a network draws nothing
            master = teacher()
        one = score(master, fresh(build, init, 7, repeat), images, list(values))
        assert one == {name: row[repeat] for name, row in values.items()}
    assert values["diswot"][0] != values["diswot"][1]
    assert values["params"] == [count_params(build())] * 2


def test_scores_do_not_depend_on_order_or_company() -> None:
    plan = enumerate_params(tiny, 36) or []
    fixed = scorer(teacher(), [batch()], seed=4)

    def diswot(scorer: Scorer, params: Params, names: list[str]) -> float:
        students = scorer.students(lambda: build_network(tiny, params))
        return scorer.score(students, names)["diswot"][0]

    forwards = [diswot(fixed, params, ["diswot"]) for params in plan]
    torch.manual_seed(3)
    names = ["params", "semantic", "diswot"]
    assert [diswot(fixed, params, names) for params in plan[::-1]] == forwards[::-1]
    other = scorer(toys.seeded(toys.LinearHead, 5), [batch()], seed=4)
    assert diswot(other, plan[0], ["diswot"]) == forwards[0]


def test_teacher_draws_its_weights_apart() -> None:
    """With the candidates' own draws, a student like the teacher would agree with it in full."""
    fixed = scorer(teacher(), [batch()], seed=2)
    (seen,) = fixed.teachers
    assert seen is not None
    draws = {
        role: observe(fresh(teacher, "gaussian", 2, role=role), *batch()).logits
        for role in (TEACHER, STUDENT)
    }

    assert torch.equal(seen.logits, draws[TEACHER])
    assert not torch.equal(seen.logits, draws[STUDENT])
    assert torch.equal(observe(fixed.fresh(teacher), *batch()).logits, draws[STUDENT])
    assert max(fixed.score(fixed.students(teacher), ["diswot"])["diswot"]) < -0.01


def test_trained_teacher_is_taken_as_it_is() -> None:
    master, images = teacher(), batch()
    own = observe(master, *images)

    kept = scorer(master, [images], trained_teacher=True).teachers[0]
    drawn = scorer(master, [images]).teachers[0]

    assert torch.equal(kept.logits, own.logits) and not torch.equal(drawn.logits, own.logits)


@pytest.mark.parametrize("trained", [False, True])
def test_teacher_is_left_as_it_was(trained: bool) -> None:
    master = teacher()
    master.block2.eval()
    master.fc.weight.requires_grad_(False)
    before = copy.deepcopy(master)
    state = torch.get_rng_state()

    scorer(master, [batch(4), batch(5)], trained_teacher=trained)

    for one, other in zip(master.modules(), before.modules(), strict=True):
        assert one.training == other.training
        assert not one._forward_hooks and not one._forward_pre_hooks
    for one, other in itertools.chain(
        zip(master.parameters(), before.parameters(), strict=True),
        zip(master.buffers(), before.buffers(), strict=True),
    ):
        assert torch.equal(one, other) and one.requires_grad == other.requires_grad
        assert one.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def counted(model: nn.Module) -> list[int]:
    """The number of images of each forward pass to come, of the model and of its copies."""
    passes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    return passes


@pytest.mark.parametrize(
    ("proxies", "teacher_passes", "student_passes"),
    [
        (["params", "depth"], [], []),
        (["macs"], [], [1]),
        (["zen"], [], [6] * 3),  # observed, then noise and disturbed noise
        (["naswot", "params"], [], [6]),
        (["diswot"], [6], [6]),
        (["diswot", "semantic", "relation", "kd", "gradcam", "params", "depth"], [6], [6]),
        (["detail"], [IMAGES] * DRAWS, [6, *[IMAGES] * DRAWS]),
        (["detail", "relation"], [6, *[IMAGES] * DRAWS], [6, *[IMAGES] * DRAWS]),
        (["default", "detail", "relation"], [6, *[IMAGES] * DRAWS], [6, *[IMAGES] * DRAWS]),
    ],
)
@pytest.mark.parametrize("trained", [False, True])
def test_what_is_asked_is_what_is_computed(
    proxies: list[str], teacher_passes: list[int], student_passes: list[int], trained: bool
) -> None:
    master, model = teacher(), student()
    ran, student_ran = counted(master), counted(model)

    fixed = scorer(master, [batch()], proxies, trained_teacher=trained)
    assert ran == teacher_passes and student_ran == []
    fixed.score([model], proxies)
    assert (ran, student_ran) == (teacher_passes, student_passes)

    ran.clear(), student_ran.clear()
    score(master, model, batch(), proxies)
    assert (sorted(ran), student_ran) == (sorted(teacher_passes), student_passes)


def test_maps_of_classes_cost_the_teacher_a_pass_only_where_they_are_compared() -> None:
    """The mean of two heads has no closed form, so its class gradient costs a second pass."""
    for proxies, expected in ((["relation"], 2), (["relation", "gradcam"], 3)):
        master = toys.seeded(toys.TwoHeads)
        ran = counted(master)
        scorer(master, [batch()], proxies, trained_teacher=True)
        assert ran == [6] * expected


def test_by_default_all_is_computed_of_the_teacher_once_a_batch() -> None:
    master = teacher()
    ran = counted(master)

    fixed = scorer(master, [batch(4), batch(5)])
    fixed.score(fixed.students(student), ["diswot", "semantic", "default", "detail", "params"])

    assert ran == [4, *[IMAGES] * DRAWS, 5, *[IMAGES] * DRAWS]
    assert all(seen is not None and seen.cam_weights is not None for seen in fixed.teachers)


def test_scores_do_not_depend_on_what_else_the_teacher_was_observed_for() -> None:
    names = ["diswot", "gradcam", "detail", "zen"]
    whole = scorer(teacher(), [batch()])
    expected = whole.score(whole.students(student), names)
    for name in names:
        fixed = scorer(teacher(), [batch()], [name])
        assert fixed.score(fixed.students(student), [name]) == {name: expected[name]}


def test_a_teacher_is_needed_only_by_what_compares_it() -> None:
    fixed = scorer(None, [batch(4), batch(5)], ["zen", "params"], init="kaiming", seed=3)
    alike = scorer(teacher(), [batch(4), batch(5)], init="kaiming", seed=3)
    names = ["zen", "params"]
    assert fixed.score(fixed.students(student), names) == alike.score(
        alike.students(student), names
    )

    with pytest.raises(UserError, match=r"^diswot, detail need a teacher; scores such as"):
        scorer(None, [batch()], ["zen", "diswot", "detail"])
    with pytest.raises(UserError, match="needs an observation of a teacher"):
        fixed.score(fixed.students(student), ["diswot"])


# Initialisations


@pytest.mark.parametrize(
    ("names", "init", "groups"),
    [
        (["default"], None, {"kaiming": ["default"]}),
        (["diswot"], None, {"gaussian": ["diswot"]}),
        (["params"], None, {"gaussian": ["params"]}),
        ([], None, {}),
        (
            ["params", "kd", "detail", "zico", "capacity", "macs"],
            None,
            {"gaussian": ["params", "kd", "zico", "macs"], "kaiming": ["detail", "capacity"]},
        ),
        (
            ["depth", "capacity", "params", "kd"],
            None,
            {"kaiming": ["depth", "capacity", "params"], "gaussian": ["kd"]},
        ),
        (["kd", "params", "default"], "default", {"default": ["kd", "params", "default"]}),
        (["params", "macs"], "kaiming", {"kaiming": ["params", "macs"]}),
    ],
)
def test_proxies_by_initialisation(
    names: list[str], init: str | None, groups: dict[str, list[str]]
) -> None:
    """Sizes go with the first of the others, in the order that was asked for."""
    found = by_init(names, init)

    assert found == groups and list(found) == list(groups)


def test_every_proxy_has_an_initialisation() -> None:
    own = {name for name, row in PROXIES.items() if row.init == "kaiming"}
    ours = {"default", *WEIGHTS}
    assert own == ours | {"expressivity", "progressivity", "trainability"}
    assert {row.init for row in PROXIES.values()} == {"gaussian", "kaiming", "inherited"}
    assert sorted(itertools.chain(*by_init(PROXIES).values())) == sorted(PROXIES)
    with pytest.raises(UserError, match="unknown proxy 'diswott'"):
        by_init(["diswott"])


# What is inherited


def resnet(blocks: int, classes: int = toys.CLASSES) -> nn.Module:
    return CifarResNet((blocks, 1, 1), classes)


def master() -> nn.Module:
    """Stands for a trained teacher, with three blocks in the first stage."""
    return fresh(partial(resnet, 3), "kaiming", 5, role=TEACHER)


LOOKING = ["agreement", "agreement_top1", "kd", "relation", "naswot", "default", "grad_norm"]


def test_inherited_weights_are_those_of_the_teacher() -> None:
    """The teacher's own architecture is the teacher, whatever was drawn."""
    fixed = scorer(master(), [batch(4), batch(5)], LOOKING, init="inherited", seed=3)
    found = fixed.score(fixed.students(partial(resnet, 3)), LOOKING)

    assert found["agreement"] == [0, 0] and found["agreement_top1"] == [1, 1]
    assert found["kd"] == found["relation"] == [0, 0]
    kept = scorer(master(), [batch(4), batch(5)], LOOKING, seed=3, trained_teacher=True)
    assert found == kept.score([master(), master()], LOOKING)


def test_inherited_scores_are_those_after_inheritance() -> None:
    """Weights that do not fit are fresh, of the default initialisation."""
    fixed = scorer(master(), [batch()] * 2, LOOKING, init="inherited", seed=3)
    found = fixed.score(fixed.students(partial(resnet, 2)), LOOKING)

    by_hand = [fresh(partial(resnet, 2), "default", 3, repeat) for repeat in range(2)]
    for model in by_hand:
        inherit(master(), model, [batch().images])
    kept = scorer(master(), [batch()] * 2, LOOKING, seed=3, trained_teacher=True)
    assert found == kept.score(by_hand, LOOKING)
    plain = scorer(master(), [batch()], LOOKING, init="default", seed=3, trained_teacher=True)
    others = plain.score(plain.students(partial(resnet, 2)), LOOKING)
    assert [name for name in LOOKING if found[name][0] == others[name][0]] == []
    assert found["agreement"][0] > others["agreement"][0]


def test_what_does_not_fit_is_drawn_from_the_seed() -> None:
    """A classifier of other classes: the rest is inherited."""

    def found(seed: int) -> list[float]:
        fixed = scorer(master(), [batch()] * 2, ["relation", "naswot", "snip"], init="inherited",
                       seed=seed)  # fmt: skip
        values = fixed.score(fixed.students(partial(resnet, 3, 6)), ["relation", "snip"])
        assert values["relation"] == [0, 0]
        return values["snip"]

    assert found(0) == found(0) and len({*found(0), *found(1)}) == 4


def test_a_student_that_inherits_nothing_keeps_fresh_weights() -> None:
    with pytest.raises(UserError, match="can inherit nothing"):
        inherit(master(), toys.ConvClassifier())
    names = ["grad_norm", "snip"]
    scores = []
    for init in ("inherited", "default"):
        fixed = scorer(master(), [batch()], names, init=init, seed=3)
        scores.append(fixed.score(fixed.students(toys.ConvClassifier), names))

    assert scores[0] == scores[1]


def test_inheriting_needs_a_teacher_only_if_weights_matter() -> None:
    with pytest.raises(UserError, match="there is no teacher to inherit weights from"):
        scorer(None, [batch()], ["naswot"], init="inherited")
    fixed = scorer(None, [batch()], ["params"], init="inherited")
    assert fixed.source is None


def test_the_teacher_is_left_as_it_was() -> None:
    model = master()
    before = copy.deepcopy(model.state_dict())
    fixed = scorer(model, [batch()], LOOKING, init="inherited")
    fixed.score(fixed.students(partial(resnet, 2)), LOOKING)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# What cannot be scored


def test_unknown_proxy() -> None:
    with pytest.raises(UserError, match="unknown proxy 'diswott'; did you mean diswot"):
        get_proxy("diswott")
    with pytest.raises(UserError, match="unknown proxy 'param'; did you mean params"):
        score(teacher(), student(), batch(), ["param"])
    with pytest.raises(UserError, match="unknown proxy ''"):
        scorer(teacher(), [batch()]).score([student()], [""])
    with pytest.raises(UserError, match="unknown proxy 'param'; did you mean params"):
        scorer(teacher(), [batch()], ["param"])


@pytest.mark.parametrize("proxies", [None, ["params"]])
def test_unknown_initialisation(proxies: list[str] | None) -> None:
    with pytest.raises(UserError, match="unknown initialisation 'normal'; known: default, gau"):
        scorer(teacher(), [batch()], proxies, init="normal")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(4, 1, 8, 8),
            r"^the teacher: the images have 1 channels, but the model takes 3$",
        ),
        (torch.zeros(1, 3, 8, 8), "batch statistics need at least two images"),
        (torch.zeros(4, 3, 8), "images must be a float tensor B x C x H x W"),
    ],
)
def test_images_that_do_not_fit_the_teacher(images: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        scorer(teacher(), [Batch(images, torch.zeros(len(images), dtype=torch.int64))])
    assert "\n" not in str(error.value)


def test_labels_that_do_not_fit_the_teacher() -> None:
    with pytest.raises(UserError, match="label 5 does not fit a model with 5 classes"):
        scorer(teacher(), [Batch(batch().images, batch().labels * 0 + 5)])


class Silent(toys.LinearHead):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError


def test_teacher_that_fails_without_a_word() -> None:
    with pytest.raises(UserError, match="the teacher cannot take images"):
        scorer(Silent(), [batch()])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_score_that_is_not_finite_is_an_error(value: float) -> None:
    model = student()
    nn.init.constant_(model[-1].bias, value)

    with pytest.raises(ArithmeticError, match="kd is nan"):
        score(teacher(), model, batch(), ["params", "kd"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: toyspaces.student([nn.Conv2d(3, 2, 1)], 2).append(nn.Linear(5, 4)), "classes"),
        (toys.Nested, "semantic needs classifiers of one shape"),
    ],
)
def test_student_that_does_not_fit_the_teacher(
    build: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        score(teacher(), build(), batch(), ["diswot"])
