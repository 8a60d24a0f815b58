"""The table of students under several teachers, and its statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_training import digits

from diswot.costs.budget import Costs
from diswot.costs.counts import count_depth
from diswot.ranking.tables.read import read_table
from diswot.spaces.trials import FixedParamsTrial

ROOT = Path(__file__).parents[1]


@pytest.fixture
def table(imported: Callable[[str], Any]) -> Any:
    return imported("teachers_table")


@pytest.fixture
def space(imported: Callable[[str], Any]) -> Any:
    return imported("teachers_space")


@pytest.fixture
def analysis(imported: Callable[[str], Any]) -> Any:
    return imported("teachers_analysis")


@pytest.fixture
def drawing(imported: Callable[[str], Any]) -> Any:
    return imported("teachers_draw")


# Students and teachers


def test_students_are_what_their_lines_say(space: Any, drawing: Any) -> None:
    rows = space.students()
    assert len(rows) == 24
    for kind, count in drawing.COUNTS.items():
        some = [row for row in rows.values() if row["space"] == kind]
        assert len(some) == count == len({str(row["params"]) for row in some})
        for row in some[:2]:
            model = space.student(row, 20)
            costs = Costs(model, (3, 32, 32))
            assert (costs.params, costs.counts.macs) == (row["model_params"], row["macs"])
            assert count_depth(model) == row["depth"]
            assert row["macs"] <= drawing.MAX_MACS[kind]


def test_all_networks_end_in_64_channels(space: Any) -> None:
    one_of_each = {row["space"]: row for row in space.students().values()}.values()
    models = [build(20) for build in space.TEACHERS.values()]
    for model in [*models, *(space.student(row, 20) for row in one_of_each)]:
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
        assert (linear.in_features, linear.out_features) == (64, 20)
        assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 20)


def test_vgg_is_a_chain_of_its_layers(space: Any) -> None:
    """Its output is that of its layers one after the other, so no shortcut is in it."""
    vgg = space.vgg(5).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    leaves = [m for m in vgg.modules() if not list(m.children())]
    y = x
    for layer in leaves:
        y = layer(y)
    torch.testing.assert_close(vgg(x), y)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in leaves) == 6


def test_strata_are_the_middles_of_equal_parts(drawing: Any) -> None:
    rows = [{"number": i} for i in range(8)]
    assert [row["number"] for row in drawing.strata(rows, 2)] == [2, 6]
    assert drawing.strata(rows, 8) == rows


def test_a_cell_is_connected_by_its_operations(drawing: Any) -> None:
    nothing = {f"op_{node}_{s}": "none" for node in (1, 2, 3) for s in range(node)}
    assert not drawing.connected(nothing)
    assert drawing.connected({**nothing, "op_3_0": "skip_connect"})
    assert not drawing.connected({**nothing, "op_3_2": "skip_connect"})
    chain = {"op_1_0": "skip_connect", "op_2_1": "skip_connect", "op_3_2": "skip_connect"}
    assert drawing.connected({**nothing, **chain})


# Trainings


def test_logits_are_computed_once(table: Any, tmp_path: Path) -> None:
    calls = []

    class Teacher(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return x.mean((2, 3))

    x = torch.rand(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    path = tmp_path / "logits.safetensors"
    kept = table.KeptLogits(Teacher(), path)
    first = kept(x)
    kept.write()
    assert torch.equal(kept(x.clone()), first)
    again = table.KeptLogits(Teacher(), path)
    assert torch.equal(again(x.contiguous()), first)
    assert calls == [4]
    again(x + 1)
    assert calls == [4, 4]


def tiny_school(table: Any, space: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(space.TEACHERS, "vgg", lambda k: space.CifarResNet((1, 1, 1), k))
    images = replace(digits(40, 20), size=8)
    return table.School(images, tmp_path, epochs=1)


def test_kept_logits_change_no_training(
    table: Any, space: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same student learns the same from the teacher itself, and from its kept logits."""
    monkeypatch.setattr(table, "BATCH", 16)
    school = tiny_school(table, space, tmp_path, monkeypatch)
    row = next(row for row in space.students().values() if row["student"] == "s0 1-1-1")
    key = {"student": "s0 1-1-1", "teacher": "vgg", "loss": table.LOGITS, "seed": 0, "epochs": 2}

    made = [school.train(row, key) for _ in range(2)]
    monkeypatch.setattr(table, "KeptLogits", lambda teacher, path: None)
    made.append(school.train(row, key))

    assert len({each["accuracy"] for each in made}) == 1
    assert (tmp_path / "vgg.safetensors").exists()
    assert len({each["teacher_test"] for each in made}) == 1


def test_seed_0_of_all_students_comes_first(table: Any, space: Any) -> None:
    import argparse

    options = argparse.Namespace(students=3, seeds=2, epochs=8)
    keys = [key for _, key in table.trainings(options)]
    assert len(keys) == len({table.identity(key) for key in keys}) == 3 * 5 * 2
    assert [key["seed"] for key in keys] == [0] * 15 + [1] * 15
    columns = [(key["teacher"], key["loss"]) for key in keys]
    assert columns[:9] == table.COLUMNS[:3] * 3
    assert columns[9:15] == table.COLUMNS[3:] * 3
    assert len({key["student"] for key in keys[:3]}) == 1


# The table


def test_rank_reads_the_table(table: Any, space: Any, tmp_path: Path) -> None:
    """`diswot rank --where teacher=... --where loss=... --where seed=...` reads one column."""
    path = tmp_path / "t.csv"
    for place, row in enumerate(list(space.students().values())[:3]):
        for number, (teacher, loss) in enumerate(table.COLUMNS):
            key = {"teacher": teacher, "loss": loss, "seed": 0, "epochs": 8}
            result = {
                "accuracy": f"{50 + place + 10 * number:.2f}",
                "teacher_test": "60.00" if number else "",
                "seconds": "9",
            }
            table.append(path, table.line(row, key, result))
    where = ["teacher=vgg", "loss=kd_standardised", "seed=0"]
    found = read_table(path, "benchmarks/teachers_space.py:build", where)

    assert [row.params["student"] for row in found.rows] == list(space.students())[:3]
    first = 50 + 10 * table.COLUMNS.index(("vgg", table.LOGITS))
    assert found.accuracies["accuracy"] == [first, first + 1, first + 2]
    from diswot.ranking.tables.targets import choose_target

    assert choose_target(found.accuracies) == "accuracy"


def test_the_space_builds_a_student_by_name(space: Any) -> None:
    name = next(iter(space.students()))
    model = space.build(FixedParamsTrial({"student": name}), num_classes=7)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_kept_scores_are_of_all_students(imported: Callable[[str], Any], space: Any) -> None:
    """And `diswot` is the sum of its two parts, as its definition says."""
    kept = imported("teachers_scores")
    rows = kept.lines(kept.SCORED)
    fresh = [row for row in rows if row["weights"] == kept.FRESH]
    assert [(r["teacher"], r["student"]) for r in fresh] == [
        (teacher, student) for teacher in space.TEACHERS for student in space.students()
    ]
    for row in rows:
        parts = float(row["semantic"]) + float(row["relation"])
        assert float(row["diswot"]) == pytest.approx(parts, abs=1e-6)


# Statistics


def accuracies(s: int = 5, t: int = 3, r: int = 2, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    return random.normal(size=(s, t, r)) + 3 * random.normal(size=(s, 1, 1))


def squares_left(y: Any, factors: list[tuple[int, ...]]) -> float:
    """Return the residual sum of squares of a linear model with an indicator of each cell."""
    place = np.indices(y.shape).reshape(3, -1)
    columns = []
    for factor in factors:
        key = [tuple(place[list(factor), i]) for i in range(y.size)]
        columns += [[k == level for k in key] for level in dict.fromkeys(key)]
    design = np.array(columns, float).T
    flat = y.reshape(-1)
    return float(np.square(flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]).sum())


def test_sums_of_squares_are_those_of_nested_linear_models(analysis: Any) -> None:
    """Of each source: by how much its indicators lower the squares that a linear model leaves."""
    y = accuracies()
    lines = analysis.analysis_of_variance(y)
    models = [[()], [(0,)], [(0, 2)], [(0, 2), (1,)], [(0, 2), (0, 1)]]
    left = [squares_left(y, model) for model in models]
    names = [analysis.STUDENT, analysis.SEED, analysis.TEACHER, analysis.INTERACTION]
    for name, before, after in zip(names, left, left[1:], strict=False):
        assert lines[name].squares == pytest.approx(before - after)
    assert lines[analysis.RESIDUAL].squares == pytest.approx(left[-1])
    assert sum(line.df for line in lines.values()) == y.size - 1


def test_analysis_by_hand(analysis: Any) -> None:
    """Two students, two teachers, two seeds: the second teacher adds 2 to the second student."""
    y = np.array([[[0.0, 2.0], [0.0, 2.0]], [[10.0, 10.0], [12.0, 12.0]]])
    lines = analysis.analysis_of_variance(y)
    assert lines[analysis.STUDENT].squares == pytest.approx(8 * 5**2)
    assert lines[analysis.SEED].squares == pytest.approx(4 * 1**2)
    assert lines[analysis.TEACHER].squares == pytest.approx(8 * 0.5**2)
    assert lines[analysis.INTERACTION].squares == pytest.approx(8 * 0.5**2)
    assert lines[analysis.RESIDUAL].squares == pytest.approx(0, abs=1e-12)
    assert lines[analysis.TEACHER].f == pytest.approx(1)
    assert lines[analysis.TEACHER].p == pytest.approx(0.5)


def test_of_one_seed_the_interaction_is_not_tested(analysis: Any) -> None:
    """With two teachers, F of the teacher is the square of the paired t."""
    y = accuracies(r=1)
    lines = analysis.analysis_of_variance(y)
    assert np.isnan(lines[analysis.INTERACTION].f) and lines[analysis.RESIDUAL].df == 0
    flat = y[:, :2, 0]
    two = analysis.analysis_of_variance(y[:, :2])
    paired = stats.ttest_rel(flat[:, 0], flat[:, 1])
    assert two[analysis.TEACHER].f == pytest.approx(paired.statistic**2)
    assert two[analysis.TEACHER].p == pytest.approx(paired.pvalue)


def test_deviations_are_found_again(analysis: Any) -> None:
    random = np.random.default_rng(1)
    s, t, r = 400, 3, 2
    parts = {"student": (s, 1, 1), "seed": (s, 1, r), "interaction": (s, t, 1), "rest": (s, t, r)}
    sizes = {"student": 5.0, "seed": 2.0, "interaction": 1.0, "rest": 0.7}
    y = sum(sizes[name] * random.normal(size=shape) for name, shape in parts.items())
    found = analysis.deviations(y)
    names = [analysis.STUDENT, analysis.SEED, analysis.INTERACTION, analysis.RESIDUAL]
    for name, size in zip(names, sizes.values(), strict=True):
        assert found[name] == pytest.approx(size, rel=0.15)


def test_a_detectable_interaction_is_seen_in_four_of_five_tables(analysis: Any) -> None:
    random = np.random.default_rng(2)
    s, t, r = 10, 3, 2
    size = analysis.detectable(s, t, r, 1.0)
    seen = 0
    for _ in range(1000):
        y = random.normal(size=(s, t, r)) + size * random.normal(size=(s, t, 1))
        seen += analysis.analysis_of_variance(y)[analysis.INTERACTION].p < 0.05
    assert 0.76 < seen / 1000 < 0.84


def test_tau_is_scipys(analysis: Any) -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(2, 12))
    found = analysis.tau(x, y)
    assert found.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert found.low < found.value < found.high
    x[0] = np.nan
    assert analysis.tau(x, y).value == pytest.approx(stats.kendalltau(x[1:], y[1:]).statistic)


def test_rankings_that_only_the_teacher_changes(analysis: Any) -> None:
    """Seeds agree wholly; the two teachers rank in opposite orders."""
    ranks = np.arange(6.0)
    y = np.stack([np.stack([ranks, -ranks], 1)] * 2, 2)
    found = analysis.agreement(y)
    assert (found.seeds.value, found.teachers.value, found.both.value) == (1, -1, -1)
    assert (found.lead.value, found.lead.low) == (2, 2)


def test_complete_students_of_a_partial_table(analysis: Any) -> None:
    columns = [("none", "labels"), ("vgg", "kd")]
    cells = [
        ("a", 0, 0),
        ("a", 1, 0),
        ("a", 0, 1),
        ("b", 0, 0),
        ("b", 1, 0),
        ("b", 0, 1),
        ("b", 1, 1),
    ]
    rows = [
        {"student": s, "teacher": columns[j][0], "loss": columns[j][1], "seed": str(k),
         "accuracy": str(10 * j + k)}
        for s, j, k in cells
    ]  # fmt: skip
    names, y = analysis.complete(rows, columns, [0])
    assert names == ["a", "b"] and y.tolist() == [[[0], [10]], [[0], [10]]]
    names, y = analysis.complete(rows, columns, [0, 1])
    assert names == ["b"] and y.tolist() == [[[0, 1], [10, 11]]]
    names, y = analysis.complete([], columns, [0, 1])
    assert names == [] and y.shape == (0, 2, 2)


# The page


def made_rows(table: Any, space: Any, seeds: int, students: int, interaction: float) -> list[Any]:
    """Return lines whose accuracies are drawn: students differ by 5 points, seeds by 0.5."""
    random = np.random.default_rng(0)
    rows = []
    for row in list(space.students().values())[:students]:
        own = 50 + 5 * random.normal()
        for teacher, loss in table.COLUMNS:
            shift = own + interaction * random.normal()
            for seed in range(seeds):
                key = {"teacher": teacher, "loss": loss, "seed": seed, "epochs": 8}
                result = {"accuracy": f"{shift + 0.5 * random.normal():.2f}"}
                result |= {"teacher_test": "" if teacher == "none" else "61.00", "seconds": "40"}
                line = table.line(row, key, result)
                rows.append({name: str(value) for name, value in line.items()})
    return rows


@pytest.fixture
def pages(imported: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(imported("teachers_analysis"), "RESAMPLES", 20)
    page = imported("teachers_page")
    return page


def test_page_says_that_an_interaction_is_beyond_noise(pages: Any, table: Any, space: Any) -> None:
    text = pages.page(made_rows(table, space, 2, 12, 3.0), [])
    assert "120 of 240 trainings are there" in text
    sizes = "n = 12 students, 2 seeds, teachers vgg, convmixer, resnet56."
    assert f"{sizes} The interaction of student and teacher is beyond noise" in text
    assert "| labels alone | - | 12 | 12 | 12 |" in text


def test_page_says_what_one_seed_cannot_say(pages: Any, table: Any, space: Any) -> None:
    text = pages.page(made_rows(table, space, 1, 9, 0.0), [])
    assert "n = 9 students, 1 seed, teachers vgg, convmixer, resnet56. There is one seed" in text
    assert "student x teacher" in text and "residual" not in text.split("## Rankings")[0]


def test_sample_of_a_table_under_way(pages: Any, table: Any, space: Any) -> None:
    """Four students have two teachers, three of them a third: 3 and 4 degrees of freedom."""
    rows = made_rows(table, space, 1, 4, 1.0)
    last = [row for row in rows if row["student"] == rows[-1]["student"]]
    rows = [row for row in rows if row not in last or row["teacher"] != "resnet56"]
    found = pages.largest(pages.samples(rows, [0]))
    assert (found.teachers, len(found.names)) == (("vgg", "convmixer", "resnet56"), 3)
    rows = [row for row in rows if row["teacher"] != "resnet56"]
    found = pages.largest(pages.samples(rows, [0]))
    assert (found.teachers, len(found.names), found.freedom) == (("vgg", "convmixer"), 4, 3)
    assert pages.largest(pages.samples(rows, [0, 1])).freedom == 0
    assert pages.page(rows, []).endswith(pages.TOO_FEW)


def test_picture_has_the_accuracies(pages: Any, table: Any, space: Any) -> None:
    rows = made_rows(table, space, 1, 4, 1.0)
    axes = pages.picture(rows).axes[0]
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    found = {r["teacher"]: float(r["accuracy"]) for r in rows[:5] if r["loss"] != table.MAPS}
    assert drawn["vgg"][0].tolist() == [found["none"], found["vgg"]]
    assert [len(points) for points in drawn.values()] == [4, 4, 4, 4, 2]


def test_page_of_next_to_nothing(pages: Any, table: Any, space: Any) -> None:
    text = pages.page(made_rows(table, space, 1, 2, 0.0)[:7], [])
    assert "7 of 240" in text and "##" not in text
    assert "0 of 240" in pages.page([], []) and text.endswith(pages.TOO_FEW)


def test_scores_are_ranked_with_columns_and_differences(pages: Any, table: Any, space: Any) -> None:
    """A score that is the accuracy under each teacher knows both; one without a teacher neither."""
    rows = made_rows(table, space, 1, 6, 3.0)
    scored = []
    for row in rows:
        if row["loss"] == table.LOGITS:
            empty = dict.fromkeys(pages.SCORES, "")
            given = {"default": row["accuracy"], "params": str(-float(row["accuracy"]))}
            where = {"student": row["student"], "teacher": row["teacher"], "weights": "fresh"}
            scored.append({**where, **empty, **given})
    text = pages.scores(scored, pages.largest(pages.samples(rows, [0])))
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines()}
    assert lines["default"][1:4] == ["1.00"] * 3
    assert lines["default"][5].startswith("1.00 (1.00")
    assert lines["params"][1:4] == ["-1.00"] * 3
    assert lines["params"][5].strip("| ") == "-"
