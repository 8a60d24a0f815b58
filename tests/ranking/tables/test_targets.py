"""Which column of a table is the accuracy, and what its cells say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from diswot.errors import UserError
from diswot.ranking.tables.notations import cell_number
from diswot.ranking.tables.read import read_table
from diswot.ranking.tables.rows import AccuracyTable
from diswot.ranking.tables.targets import choose_target, turned_round, vanilla_column

STUDENTS = ["1,1,1", "3,1,1", "1,3,1", "1,1,3"]


def made(folder: Path, header: str, *rows: str) -> AccuracyTable:
    """A table of S0; `@` stands for the parameters."""
    lines = [header.replace("@", "blocks1,blocks2,blocks3")]
    lines += [row.replace("@", student) for row, student in zip(rows, STUDENTS, strict=False)]
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    return read_table(folder / "t.csv", "s0")


@pytest.mark.parametrize(
    ("header", "rows", "target", "values"),
    [
        ("id,@,acc", ["7,@,60", "8,@,61", "9,@,62"], "acc", [60, 61, 62]),
        (",@,accuracy", ["0,@,60", "1,@,61", "2,@,62"], "accuracy", [60, 61, 62]),
        ("Unnamed: 0,@,top1", ["0,@,60", "1,@,61", "2,@,62"], "top1", [60, 61, 62]),
        ("seed,@,test", ["0,@,60", "0,@,61", "1,@,62"], "test", [60, 61, 62]),
        ("epoch,lr,time,@,testAcc", ["9,1,3,@,60", "8,1,5,@,61"], "testAcc", [60, 61]),
        ("test_loss,@,test_acc", ["1.2,@,60", "1.1,@,61"], "test_acc", [60, 61]),
        ("top1_err,@,top1", ["40,@,60", "39,@,61"], "top1", [60, 61]),
        ("train_acc,@,val_acc", ["99,@,60", "98,@,61"], "val_acc", [60, 61]),
        ("top5,@,top1", ["90,@,60", "91,@,61"], "top1", [60, 61]),
        ("acc_std,@,acc", ["0.2,@,60", "0.1,@,61"], "acc", [60, 61]),
        ("vanilla_acc,@,distilled_acc", ["58,@,60", "59,@,61"], "distilled_acc", [60, 61]),
        ("vanilla,@,distilled", ["58,@,60", "59,@,61"], "distilled", [60, 61]),
        ("c100_base_acc,@,flower_kd_acc", ["58,@,60", "59,@,61"], "flower_kd_acc", [60, 61]),
        ("place,@,result", ["1,@,60", "2,@,62", "3,@,61"], "result", [60, 62, 61]),
        ("nodes,@,result", ["900,@,60", "800,@,62"], "result", [60, 62]),
        ("@,top1_error", ["@,40", "@,39", "@,37.5"], "100-top1_error", [60, 61, 62.5]),
        ("@,misclassification", ["@,40", "@,39"], "100-misclassification", [60, 61]),
        ("@,1-acc", ["@,0.4", "@,0.39"], "100-1-acc", [60, 61]),
        ("@,acc_drop", ["@,4", "@,3.5"], "100-acc_drop", [96, 96.5]),
        ("@,accuracy gap", ["@,4", "@,3.5"], "100-accuracy gap", [96, 96.5]),
        ("@,inaccuracy", ["@,40", "@,39"], "100-inaccuracy", [60, 61]),
        ("@,test_mse", ["@,1.4", "@,140"], "-test_mse", [-1.4, -140]),
        ("mae,@,top1", ["4,@,60", "3,@,61"], "top1", [60, 61]),
        ("@,regret", ["@,4", "@,3.5"], "100-regret", [96, 96.5]),
        ("top1_err,@,top5", ["40,@,90", "39,@,91"], "100-top1_err", [60, 61]),
        ("train_acc,@,test_err", ["99,@,40", "98,@,39"], "100-test_err", [60, 61]),
        ("@,train_acc", ["@,99", "@,98"], "train_acc", [99, 98]),
        ("@,error", ["@,0.4", "@,0.25"], "100-error", [60, 75]),
        ("@,test_loss", ["@,1.4", "@,1.25"], "-test_loss", [-1.4, -1.25]),
        ("@,acc", ["@,0.6", "@,0.75"], "acc", [60, 75]),
        ("@,acc", ["@,0.6%", "@,0.75 %"], "acc", [0.6, 0.75]),
    ],
)
def test_the_column_that_is_meant(
    tmp_path: Path, header: str, rows: list[str], target: str, values: list[float]
) -> None:
    table = made(tmp_path, header, *rows)
    assert choose_target(table.accuracies) == target
    assert table.accuracies[target] == pytest.approx(values)


@pytest.mark.parametrize(
    ("header", "rows", "names"),
    [
        ("@,val_acc,test_acc", ["@,60,61", "@,62,63"], "val_acc, test_acc"),
        ("@,c10,c100,seed", ["@,90,60,1", "@,91,63,1"], "c10, c100"),
        ("@,a_kd_acc,b_kd_acc", ["@,60,61", "@,62,63"], "a_kd_acc, b_kd_acc"),
        ("@,acc_1,acc_2,mean", ["@,60,61,60.5", "@,6,7,6.5"], "acc_1, acc_2, mean"),
        ("drop_rate,@,result", ["0.1,@,60", "0.2,@,61"], "drop_rate, result"),
        ("@,train_acc,result", ["@,99,60", "@,98,61"], "train_acc, result"),
        ("@,a_loss,b_loss", ["@,6,7", "@,5,4"], "-a_loss, -b_loss"),
    ],
)
def test_several_that_may_be_meant_are_named(
    tmp_path: Path, header: str, rows: list[str], names: str
) -> None:
    columns = made(tmp_path, header, *rows).accuracies
    with pytest.raises(UserError, match="several columns may be the accuracy; name one") as caught:
        choose_target(columns)
    assert str(caught.value).endswith(f": {names}") and "\n" not in str(caught.value)
    first = names.split(", ")[0]
    assert choose_target(columns, first.removeprefix("-")) == first


def test_no_column_is_clearly_an_accuracy(tmp_path: Path) -> None:
    columns = made(tmp_path, "@,nodes", "@,900", "@,800").accuracies
    with pytest.raises(UserError, match=r"no column is clearly the accuracy; name one .*: nodes$"):
        choose_target(columns)
    assert choose_target(columns, "nodes") == "nodes"
    with pytest.raises(UserError, match="the table has no column of accuracies"):
        choose_target({})
    with pytest.raises(UserError, match="unknown target 'node'; did you mean nodes"):
        choose_target(columns, "node")


@pytest.mark.parametrize(
    ("name", "cells", "values", "impossible"),
    [
        ("acc", ["-1", "70", "71", "72"], [math.nan, 70, 71, 72], 1),
        ("acc", ["-1", "0.7", "-1", "0.72"], [math.nan, 70, math.nan, 72], 2),
        ("acc", ["failed", "70", "OOM", "72"], [math.nan, 70, math.nan, 72], 2),
        ("acc", ["", "70", "nan", "172"], [math.nan, 70, math.nan, math.nan], 1),
        ("error", ["-1", "30", "29", "28"], [math.nan, 70, 71, 72], 1),
        ("result", ["-1", "70", "71", "72"], [math.nan, 70, 71, 72], 1),
        ("layout", ["-1", "-0.7", "-0.5", "-0.25"], [-1, -0.7, -0.5, -0.25], 0),  # scores
    ],
)
def test_what_cannot_be_an_accuracy_is_missing_and_counted(
    tmp_path: Path, name: str, cells: list[str], values: list[float], impossible: int
) -> None:
    table = made(tmp_path, f"@,{name}", *(f"@,{cell}" for cell in cells))
    ((target, found),) = table.accuracies.items()
    assert found == pytest.approx(values, nan_ok=True)
    assert table.impossible == ({target: impossible} if impossible else {})


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("71.20%", 71.2),
        (" 71.2 % ", 71.2),
        ("71.2 ± 0.2", 71.2),
        ("71.2±0.2%", 71.2),
        ("71.2 +/- 0.2", 71.2),
        ("71.2+-0.2", 71.2),
        ("71.2 $\\pm$ 0.2", 71.2),
        ("71.2 (0.2)", 71.2),
        ("-1.5e-1", -0.15),
        ("71.2 good", None),
        ("1.2.3", None),
        ("1-2", None),
        ("%", None),
    ],
)
def test_numbers_with_percent_signs_and_deviations(cell: str, value: float | None) -> None:
    assert cell_number(cell) == value


def test_what_was_turned_round_is_said() -> None:
    assert turned_round("100-top1_error") == (
        "top1_error is an error in percent: 100 - top1_error is ranked"
    )
    assert turned_round("-test_loss") == "test_loss is a loss: its negative is ranked"
    assert turned_round("acc") is None


def test_the_vanilla_accuracy_of_a_distilled_one() -> None:
    columns = ["vanilla_acc", "c100_base_acc", "flower_base_acc"]
    assert vanilla_column("distilled_acc", columns) == "vanilla_acc"
    assert vanilla_column("flower_kd_acc", columns) == "flower_base_acc"
    assert vanilla_column("chaoyang_kd_acc", columns) is None
    assert vanilla_column("vanilla_acc", columns) is None
