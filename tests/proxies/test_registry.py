"""What holds for every row of the table, on every kind of network."""

from __future__ import annotations

import copy
import functools
import json
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import timm
import torch
import toys
from torch import nn
from toys import seeded

from diswot.data.dataset import Batch
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.models.registry import create_teacher
from diswot.observation.observe import observe
from diswot.proxies.candidate import Candidate
from diswot.proxies.registry import PROXIES, Proxy, score_title
from diswot.proxies.scorer import NotScored, Outcome, Scorer, score, scorer
from diswot.spaces import nasbench201
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.spaces.registry import build_network, create_space

CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
POOLS = "|avg_pool_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|avg_pool_3x3~0|none~1|skip_connect~2|"
ZEROS = "|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
LACKING = "|avg_pool_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
APART = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|none~2|"
CLASSES = 10


@pytest.fixture(autouse=True, scope="module")
def one_cell_a_stage() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nasbench201, "CELLS", 1)
        yield


def cell(text: str) -> nn.Module:
    return build_network(create_space("nasbench201", CLASSES), nasbench201.from_string(text))


def vit() -> nn.Module:
    return timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=64, depth=2, num_heads=4, num_classes=CLASSES
    )


STUDENTS: dict[str, Callable[[], nn.Module]] = {
    "s0": lambda: CifarResNet((1, 1, 1), CLASSES),
    "cell": lambda: cell(CELL),
    "pools and skips": lambda: cell(POOLS),
    "convolutions of zeros": lambda: cell(ZEROS),
    "lacking": lambda: cell(LACKING),
    "vit": vit,
}
CUT = {"none": lambda: cell(NONE), "disconnected": lambda: cell(APART)}
FREE = [name for name, row in PROXIES.items() if row.cost == "free"]
GAPS = ["detail", "directness"]  # zero if nothing lacks
FIRST_BLOCK = ["default", "default_inherited", "detail"]  # compare first blocks

every_row = pytest.mark.parametrize("name", PROXIES)


@functools.cache
def fixed() -> Scorer:
    batch = create_dataset("noise", num_classes=CLASSES, img_size=16).batch(12)
    return scorer(create_teacher("resnet20", CLASSES), [batch])


def student(name: str) -> nn.Module:
    return fixed().fresh({**STUDENTS, **CUT}[name])


@functools.cache
def together(name: str) -> dict[str, Outcome]:
    """All rows of one student in the order of the table."""
    found = fixed().outcomes([student(name)], list(PROXIES))
    return {proxy: outcome for proxy, (outcome,) in found.items()}


def state(model: nn.Module) -> dict[str, object]:
    """All that a visitor could leave behind, in values that compare with ==."""
    modules = dict(model.named_modules())
    kinds = [key for key in vars(model) if key.endswith("_hooks")]
    return {
        "modes": {name: m.training for name, m in modules.items()},
        "attributes": {name: list(vars(m)) for name, m in modules.items()},
        "buffers": {name: (id(b), b.tolist()) for name, b in model.named_buffers()},
        "parameters": {name: (id(p), p.tolist()) for name, p in model.named_parameters()},
        "versions": {name: p._version for name, p in model.named_parameters()},
        "needed": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": {name: p.grad for name, p in model.named_parameters()},
        "hooks": {name: [dict(vars(m)[key]) for key in kinds] for name, m in modules.items()},
        "random": torch.get_rng_state().tolist(),
        "gradient mode": torch.is_grad_enabled(),
    }


# Values


@pytest.mark.parametrize("student", STUDENTS)
def test_is_finite(student: str) -> None:
    for name, outcome in together(student).items():
        assert type(outcome) in (float, int), (name, outcome)
        assert math.isfinite(outcome), (name, outcome)
        json.dumps(outcome)


def test_titles_say_what_the_key_does_not() -> None:
    assert score_title("default") == "learnable capacity (default)"
    assert score_title("default_inherited") == "inherited learnable capacity (default_inherited)"
    assert [score_title(name) for name in ("kd", "/a/b/mine.py:f")] == ["kd", "mine.py:f"]


def test_every_gap_is_open_somewhere() -> None:
    """Or else what is said here of the gaps would be said of zeros."""
    assert all(together("lacking")[name] < 0 for name in GAPS)


@pytest.mark.parametrize("name", CUT)
def test_a_student_without_a_path_scores_lowest_wherever_a_pass_is_looked_at(name: str) -> None:
    outcomes = together(name)
    scored = [proxy for proxy, outcome in outcomes.items() if not isinstance(outcome, NotScored)]
    assert scored == FREE == ["params", "macs", "depth", "size", "complexity"]
    for proxy, outcome in outcomes.items():
        if isinstance(outcome, NotScored):
            assert outcome.value == -math.inf
            assert str(outcome) == f"{proxy} is -inf: the logits do not depend on the images"


def test_a_classifier_of_zeros_is_not_without_a_path() -> None:
    model = student("s0")
    nn.init.zeros_(model.fc.weight)
    found = fixed().outcomes([model], ["snip", "relation", "naswot", "jacov"])
    assert all(isinstance(found[name][0], float) for name in ("snip", "relation", "naswot"))
    assert str(found["jacov"][0]) == "jacov is nan"


# Independence


@pytest.mark.parametrize("student", ["s0", "lacking", "vit"])
def test_a_row_alone_is_the_row_in_company_bit_for_bit(student: str) -> None:
    model = fixed().fresh(STUDENTS[student])
    for name, outcome in together(student).items():
        (alone,) = fixed().outcomes([model], [name])[name]
        assert alone == outcome, name


@pytest.mark.parametrize(("student", "mode"), [("s0", True), ("lacking", False), ("vit", True)])
def test_the_model_is_left_as_found_and_neither_order_nor_random_state_matters(
    student: str, mode: bool
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        model = fixed().fresh(STUDENTS[student]).train(mode)
        before = state(model)
        found = fixed().outcomes([model], list(PROXIES)[::-1])
        assert state(model) == before
    assert {name: outcome for name, (outcome,) in found.items()} == together(student)


def test_the_model_is_left_as_found_when_it_breaks() -> None:
    model, batch = seeded(toys.Broken), Batch(*toys.batch())
    before, seen = state(model), observe(seeded(toys.LinearHead), *batch)
    for name, row in PROXIES.items():
        if row.cost != "free" and name != "detail":  # which stops after the first block
            recorders = (row.recorder,) if row.recorder else ()
            with pytest.raises(RuntimeError, match="half-way"):
                row.score(Candidate(model, seen, batch, 0, recorders, False, 0.0))
        assert state(model) == before, name


# Facts


def test_facts() -> None:
    for name, row in PROXIES.items():
        assert row.summary and "\n" not in row.summary and row.summary[0].islower(), name
        assert not row.recorder or row.needs_forward, name
        assert not row.needs_backward or row.cost in ("backward", "many"), name
        assert not row.needs_batches or row.cost == "many", name


@every_row
def test_looks_at_labels_only_if_it_says_so(name: str) -> None:
    batch = fixed().batches[0]
    labels = (batch.labels * 3 + batch.labels.flip(0)) % CLASSES
    changed = Batch(batch.images, labels)
    teacher = seeded(lambda: create_teacher("resnet20", CLASSES))
    model = student("lacking" if name in (*GAPS, *FIRST_BLOCK) else "s0")
    if name == "agreement_top1":  # fresh networks agree on no image
        model = copy.deepcopy(teacher)
    values = [score(teacher, model, other, [name])[name] for other in (batch, changed)]
    assert 0 not in values
    assert (values[0] != values[1]) == PROXIES[name].needs_labels


@every_row
def test_needs_a_teacher_only_if_it_says_so(name: str) -> None:
    model, batch, row = student("s0"), fixed().batches[0], PROXIES[name]
    blind = Candidate(model, None, batch, cam=True)
    if not row.needs_teacher:
        row.score(blind)
        assert math.isfinite(score(None, model, batch, [name])[name])
        return
    missing = "first block of the teacher"
    if row.compares_observations:
        missing = "observation of a teacher"
    with pytest.raises(UserError, match=missing):
        row.score(blind)
    message = f"^{name} needs a teacher; scores such as params, zen and naswot need none$"
    with pytest.raises(UserError, match=message):
        score(None, model, batch, ["params", name])
    with pytest.raises(UserError, match=message):
        scorer(None, [batch], ["params", name])


@pytest.mark.parametrize("name", FIRST_BLOCK)
def test_an_observation_does_not_show_the_first_block_of_the_teacher(name: str) -> None:
    model, batch = student("s0"), fixed().batches[0]
    with pytest.raises(UserError, match="give the teacher itself"):
        score(fixed().teachers[0], model, batch, ["params", name])
    blind = replace(fixed(), roughness=(None,)).outcomes([model], [name, "capacity", "relation"])
    assert isinstance(blind[name][0], NotScored) and blind[name][0].misfit
    assert {n: blind[n] for n in ("capacity", "relation")} == fixed().score(
        [model], ["capacity", "relation"]
    )


def test_forward_rows_share_one_pass_and_free_ones_make_none() -> None:
    model, passes = student("s0"), []
    model.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    forward = [name for name, row in PROXIES.items() if row.cost == "forward"]
    fixed().outcomes([model], forward)
    assert passes == [12]
    passes.clear()
    fixed().outcomes([model], FREE)
    assert set(passes) == {1}


# Depth


@pytest.mark.parametrize(
    ("init", "blocks", "many"),
    [
        ("gaussian", 18, False),
        ("kaiming", 18, False),
        ("default", 18, False),
        ("gaussian", 9, True),
    ],
)
def test_a_deep_network_does_not_overflow(init: str, blocks: int, many: bool) -> None:
    batch = create_dataset("noise", num_classes=CLASSES, img_size=8).batch(4)
    proxies = [name for name, row in PROXIES.items() if (row.cost == "many") == many]
    deep = scorer(create_teacher("resnet20", CLASSES), [batch], proxies, init=init)
    model = deep.fresh(lambda: CifarResNet((blocks,) * 3, CLASSES))
    found = deep.outcomes([model], proxies)
    assert {n: o for n, (o,) in found.items() if isinstance(o, NotScored)} == {}


# What is not scored


def plain(value: float) -> Proxy:
    return Proxy(lambda candidate: value, "made up", "")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_a_number(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROXIES, "made", plain(value))
    model, batch = student("s0"), fixed().batches[0]
    with pytest.raises(NotScored, match=f"made is {value}") as raised:
        score(fixed().teachers[0], model, batch, ["params", "made"])
    assert str(raised.value.value) == str(value)
    found = fixed().outcomes([model], ["params", "made"])
    assert found["params"] == [fixed().score([model], ["params"])["params"][0]]
    (error,) = found["made"]
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.proxy, str(again.value)) == (str(error), "made", str(value))


def test_a_network_that_overflows_is_not_scored() -> None:
    model = student("s0")
    with torch.no_grad():
        model.fc.weight.fill_(3e38)
        model.bn1.weight.fill_(1e10)
    untouched = ("zen", "synflow", "trainability", "detail", "stage_entropy")
    found = fixed().outcomes([model], [n for n in PROXIES if n not in (*FREE, *untouched)])
    assert str(found["naswot"][0]) == "naswot is nan: the logits are not finite"
    assert [n for n, (o,) in found.items() if not isinstance(o, NotScored)] == []
    assert not any(outcome.value == -math.inf for (outcome,) in found.values())


def test_repeats_draw_apart_and_score_draws_as_the_first() -> None:
    batch = fixed().batches[0]
    twice = Scorer(fixed().teachers * 2, fixed().roughness * 2, (batch, batch))
    model = student("s0")
    values = twice.score([model, model], ["zen", "trainability", "vkdnw"])
    for name, (first, second) in values.items():
        assert first != second
        assert score(twice.teachers[0], model, batch, [name])[name] == first


def test_frozen_weights_do_not_count() -> None:
    model = student("s0")
    (before,) = fixed().score([model], ["snip"])["snip"]
    model.fc.requires_grad_(False)
    assert fixed().score([model], ["snip"])["snip"][0] < before


def test_inference_mode_changes_no_score() -> None:
    names = ["default", "diswot", "synflow", "jacov", "vkdnw", "zen"]
    teacher, given = create_teacher("resnet20", CLASSES), fixed().batches[0]
    expected = score(teacher, student("s0"), given, names)
    with torch.inference_mode():
        made = Batch(*(tensor.clone() for tensor in given))
        assert score(teacher, student("s0"), made, names) == expected
        several = scorer(teacher, [made], init="kaiming")
        found = several.score(several.students(STUDENTS["s0"]), ["default", "relation"])
    plain = scorer(teacher, [given], init="kaiming")
    assert found == plain.score(plain.students(STUDENTS["s0"]), ["default", "relation"])


def test_rows_say_which_teacher_fits() -> None:
    """A teacher of another width is an error just where the row says so."""
    model, given = student("s0"), fixed().batches[0]
    with torch.random.fork_rng():
        wide = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        wide.append(nn.Linear(8, CLASSES))
    for name in [n for n, row in PROXIES.items() if row.needs_teacher and row.cost == "forward"]:
        (outcome,) = Scorer(
            (observe(wide, *given, cam=True),), fixed().roughness, (given,)
        ).outcomes([model], [name])[name]
        misfit = isinstance(outcome, NotScored) and outcome.misfit
        assert misfit == PROXIES[name].same_width, name
