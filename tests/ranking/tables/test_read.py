"""Tables in every layout, from files written here and, where they are, from the published ones."""

from __future__ import annotations

import bz2
import gzip
import json
import math
import pickle
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diswot.errors import UserError
from diswot.ranking.tables.nats import load
from diswot.ranking.tables.read import read_table, sample
from diswot.ranking.tables.targets import choose_target
from diswot.spaces import nasbench201

SHARED = Path(__file__).parents[4] / "shared" / "data"
S0 = "blocks1,blocks2,blocks3,vanilla_acc,distilled_acc\n"
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"


def written(folder: Path, text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    return path


def refused(path: Path, space: str = "s0") -> str:
    with pytest.raises(UserError) as caught:
        read_table(path, space)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Layouts


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz", "TABLE.CSV.GZ"])
def test_columns_are_the_spaces_parameters(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, S0 + "1,5,3,60.5,61\n3,7,5,70.25,72\n", name)
    table = read_table(path, "s0")
    assert (table.name, table.space) == (name, "s0")
    assert table.targets == ("vanilla_acc", "distilled_acc")
    assert [row.name for row in table.rows] == ["1-5-3", "3-7-5"]
    assert table.rows[1].params == {"blocks1": 3, "blocks2": 7, "blocks3": 5}
    assert table.rows[1].accuracies == {"vanilla_acc": 70.25, "distilled_acc": 72.0}


def test_a_spreadsheets_file_is_read_the_same(tmp_path: Path) -> None:
    plain = written(tmp_path, S0 + "1,5,3,60,61\n")
    text = "\ufeff" + S0.replace(",", " , ") + '\n"1",5, 3,60 ,61\n\n'
    other = written(tmp_path, text.replace("\n", "\r\n"), "other.csv")
    assert read_table(other, "s0").rows == read_table(plain, "s0").rows


def test_numbers_that_are_sizes_are_no_accuracies(tmp_path: Path) -> None:
    header = "index,blocks1,blocks2,blocks3,acc,params_m,macs,FLOPs,depth,note\n"
    table = read_table(written(tmp_path, header + "0,1,1,1,50,0.1,3,4,9,first\n"), "s0")
    assert table.targets == ("acc",)


@pytest.mark.parametrize("kind", ["json", "rows", "jsonl", "jsonl.gz"])
def test_json_holds_parameters_in_a_dict(tmp_path: Path, kind: str) -> None:
    rows = [{"params": {"blocks1": 1, "blocks2": 3, "blocks3": k}, "acc": 50 + k} for k in (1, 5)]
    text = {
        "json": json.dumps(rows),
        "rows": json.dumps({"rows": rows, "source": "here"}),
    }.get(kind, "\n".join(map(json.dumps, rows)) + "\n")
    table = read_table(written(tmp_path, text, f"table.{kind.replace('rows', 'json')}"), "s0")
    assert [row.params["blocks3"] for row in table.rows] == [1, 5]
    assert [row.accuracies for row in table.rows] == [{"acc": 51.0}, {"acc": 55.0}]


def test_cells_in_the_benchmarks_notation(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, f"index,arch,test\n5,{CELL},91.5\n"), "nasbench201")
    assert table.rows[0].name == CELL
    assert table.rows[0].params == nasbench201.from_string(CELL)
    assert table.targets == ("test",)


def test_cells_as_matrix_and_operations(tmp_path: Path) -> None:
    text = "hash,adjacency,ops,valid\nab12,0110001100010000,3p,0.94\n,0100,,0.5\n"
    table = read_table(written(tmp_path, text), "nasbench101")
    first, second = table.rows
    assert (first.name, second.name) == ("ab12", "0100-")
    edges = {first.params[f"edge_{k}"] for k in range(1, 10)}
    assert edges == {"0-1", "0-2", "1-2", "1-6", "2-6"}
    assert first.params["op_2"] == "maxpool3x3"
    assert {second.params[f"edge_{k}"] for k in range(1, 10)} == {"0-6"}
    assert [row.accuracies["valid"] for row in table.rows] == [94.0, 50.0]


def test_transformers_as_auto_prox_writes_them(tmp_path: Path) -> None:
    arch = {"hidden_dim": 216, "mlp_ratio": [3.5] * 12, "depth": 12, "num_heads": [3, 4] * 6}
    rows = [{"arch": arch, "c100_kd_acc": 76.1, "c100_base_acc": 70.2}]
    table = read_table(written(tmp_path, json.dumps(rows), "v.json"), "autoformer")
    assert table.rows[0].params["heads_2"] == 4
    assert table.rows[0].params["hidden_dim"] == 216
    assert table.targets == ("c100_kd_acc", "c100_base_acc")


TIMM = """model,tag,pretrain,img_size,top1,params_m,gmacs,cpu_images_per_second
resnet18,in1k,,224,69.8,11.69,1.82,50
resnet18,a1_in1k,,224,71.5,11.69,1.82,50
resnet18,a1_in1k,,288,73.2,11.69,3.01,
vit_tiny_patch16_224,in1k,in21k,224,75.5,5.72,1.26,
"""


def test_networks_of_timm(tmp_path: Path) -> None:
    """The name says which training a row is of; the first number is the accuracy."""
    table = read_table(written(tmp_path, TIMM), "timm_zoo")
    assert table.targets == ("top1",)
    names = ["resnet18 in1k 224", "resnet18 a1_in1k 224", "resnet18 a1_in1k 288"]
    assert [row.name for row in table.rows] == [*names, "vit_tiny_patch16_224 in1k 224"]
    assert {row.params["model"] for row in table.rows} == {"resnet18", "vit_tiny_patch16_224"}
    assert all(row.params.keys() == {"model"} for row in table.rows)


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ([], [69.8, 71.5, 73.2, 75.5]),
        (["tag=in1k"], [69.8, 75.5]),
        (["tag=*in1k", "model=resnet*"], [69.8, 71.5, 73.2]),
        (["tag = a1_in1k, x", "img_size<=224"], [71.5]),
        (["params_m<11.69"], [75.5]),
        (["params_m>=11.69", "img_size > 224"], [73.2]),
        (["cpu_images_per_second>0"], [69.8, 71.5]),
        (["pretrain="], [69.8, 71.5, 73.2]),
    ],
)
def test_conditions(tmp_path: Path, where: list[str], left: list[float]) -> None:
    table = read_table(written(tmp_path, TIMM), "timm_zoo", where)
    assert [row.accuracies["top1"] for row in table.rows] == left


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("tag", "a condition is such as tag=in1k or params_m<13, not 'tag'"),
        ("tga=in1k", "unknown column 'tga'; did you mean tag"),
        ("tag=in21k", "no row is left with tag=in21k"),
        ("params_m<x", "compares with 'x', which is no number"),
    ],
)
def test_bad_conditions(tmp_path: Path, where: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        read_table(written(tmp_path, TIMM), "timm_zoo", [where])


def test_models_that_the_space_has_not(tmp_path: Path) -> None:
    path = written(tmp_path, TIMM.replace("resnet18,in1k", "resnet81,in1k"))
    assert "row 1: timm has no model 'resnet81'; did you mean" in refused(path, "timm_zoo")
    test = written(tmp_path, TIMM.replace("resnet18,in1k", "test_vit,in1k"))
    assert "'test_vit', which the pattern '*' does not match" in refused(test, "timm_zoo")
    assert len(read_table(test, "timm_zoo:*,test_*").rows) == 4
    refusal = refused(written(tmp_path, TIMM), "timm_zoo:resnet*")
    mismatch = "row 4: model is 'vit_tiny_patch16_224', which the pattern 'resnet*' does not match"
    assert mismatch in refusal


def test_a_users_space(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(
        "from torch import nn\n"
        "def build(trial):\n"
        "    wide = trial.suggest_int('width', 1, 64)\n"
        "    rate = trial.suggest_float('rate', 0, 1)\n"
        "    bias = trial.suggest_categorical('bias', [True, False])\n"
        "    act = trial.suggest_categorical('act', ['relu', 'gelu'])\n"
        "    return nn.Linear(wide, 2, bias=bias)\n"
    )
    text = "width,rate,bias,act,acc\n8,0.5,true,gelu,70\n8,0.25,False,relu,60\n"
    table = read_table(written(tmp_path, text), f"{tmp_path / 'space.py'}:build")
    assert table.rows[0].params == {"width": 8, "rate": 0.5, "bias": True, "act": "gelu"}
    assert table.rows[1].params["bias"] is False


# Accuracies


def test_missing_accuracies_are_nan_and_shares_percent(tmp_path: Path) -> None:
    text = "blocks1,blocks2,blocks3,share,percent\n1,1,1,0.5,\n1,1,3,NaN,0.5\n1,1,5,1,71\n"
    table = read_table(written(tmp_path, text), "s0")
    shares = [row.accuracies["share"] for row in table.rows]
    percent = [row.accuracies["percent"] for row in table.rows]
    assert (shares[0], shares[2]) == (50.0, 100.0) and math.isnan(shares[1])
    assert percent[1:] == [0.5, 71.0] and math.isnan(percent[0])


def test_a_sample_is_in_every_larger_one(tmp_path: Path) -> None:
    rows = [f"{a},{b},{c},50,60\n" for a in (1, 3, 5, 7) for b in (1, 3, 5, 7) for c in (1, 3, 5)]
    table = read_table(written(tmp_path, S0 + "".join(rows)), "s0")
    few, more = (sample(table, count, 3).rows for count in (7, 20))
    assert len(few) == 7 and len(more) == 20
    assert set(map(id, few)) < set(map(id, more))
    assert [row for row in table.rows if row in few] == list(few)
    assert sample(table, 7, 4).rows != few
    assert sample(table, 1000).rows == table.rows


# What is refused


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        (S0, "no rows"),
        ("blocks1;blocks2;blocks3;acc\n1;1;1;60,5\n", "separated by ';': separate them by commas"),
        ("blocks1\tblocks2\tblocks3\tacc\n", "separated by '\\t'"),
        (S0 + "1,1,1,50\n", "row 1 has 4 cells, the first line 5"),
        (S0 + "1,1,1,50,51\n1,1,99,50,51\n", "row 2: "),
        (S0 + "1,1,,50,51\n", "blocks3"),
        (S0 + "1,1,1,50,51\n1,1,3,50,51\n1,1,1,60,61\n", "row 3: 1-1-1 is also row 1"),
        ("blocks1,blocks2,blocks3\n1,1,1\n", "no column of accuracies"),
        ("blocks1,blocks2,blocks3,acc\n1,1,1,good\n", "accuracies: acc is not a number in row 1"),
        ("blocks1,blocks2,blocks3,acc\n1,1,1,7000\n", "accuracies; its other columns are acc"),
        ("blocks1,blocks1,blocks3,acc\n1,1,1,5\n", "every column once"),
        ('blocks1,blocks2,blocks3,acc\n1,1,1,"5\n', "CSV"),
    ],
)
def test_a_bad_table_is_one_clear_line(tmp_path: Path, text: str, part: str) -> None:
    assert part in refused(written(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("t.json", "{", "invalid JSON"),
        ("t.json", "3", "not a list of rows"),
        ("t.json", "[3]", "row 1 is not a JSON object"),
        ("t.json", "[" * 100_000, "nested"),
        ("t.jsonl", '{"acc": 1}\n{', "line 2"),
        ("t.json", '[{"params": {"blocks1": 1, "blocks2": 1, "blocks3": 1, "x": 1}}]', "'x'"),
        ("t.pkl", "x", "ends in one of .csv, .json, .jsonl"),
    ],
)
def test_bad_json_is_one_clear_line(tmp_path: Path, name: str, text: str, part: str) -> None:
    assert part in refused(written(tmp_path, text, name))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.csv")
    assert "UTF-8" in refused(written(tmp_path, S0 + "é,1,1,1,1", encoding="latin-1"))
    whole = gzip.compress(S0.encode() * 100)
    for name, data in {"a.csv.gz": b"plain", "b.csv.gz": whole[:-20]}.items():
        (tmp_path / name).write_bytes(data)
        assert name in refused(tmp_path / name)
    assert "without files of NATS-Bench" in refused(tmp_path)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("011,33", "square"),
        ("0120,", "square"),
        ("011001000,x", "unknown operation 'x'"),
        ("0000,", "no path"),
        ("010001100,3", "upper triangular"),
        ("0100,3", "as many operations"),
    ],
)
def test_a_bad_cell_of_nasbench101(tmp_path: Path, row: str, part: str) -> None:
    path = written(tmp_path, f"adjacency,ops,acc\n{row},0.9\n")
    assert part in refused(path, "nasbench101")


# NATS-Bench


def nats(**changes: Any) -> dict[str, Any]:
    """One architecture as the benchmark keeps it, two seeds on CIFAR-10 and one on the others."""

    def run(split: str, accuracy: Any) -> dict[str, Any]:
        return {"epochs": 200, "eval_acc1es": {f"{split}@0": 10.0, f"{split}@199": accuracy}}

    results = OrderedDict(
        {
            ("cifar10", 777): run("ori-test", 90.0),
            ("cifar10", 888): run("ori-test", np.float64(91.0)),
            ("cifar100", 777): run("x-test", np.float32(70.5)),
            ("ImageNet16-120", 777): run("x-test", 40.0),
        }
    )
    seeds = {"cifar10": [777, 888], "cifar100": [777], "ImageNet16-120": [777]}
    whole = {"arch_str": CELL, "all_results": results, "dataset_seed": seeds}
    return {"12": {}, "200": whole | changes}


def run_of(accuracy: Any) -> dict[Any, Any]:
    return {("cifar10", 777): {"epochs": 1, "eval_acc1es": {"ori-test@0": accuracy}}}


def packed(folder: Path, value: Any, number: int = 0) -> Path:
    path = folder / f"{number:06d}.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(value)))
    return path


def test_a_folder_of_nats_bench(tmp_path: Path) -> None:
    packed(tmp_path, {"anything": 1}).rename(tmp_path / "meta.pickle.pbz2")
    packed(tmp_path, nats(), 1)
    other = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
    packed(tmp_path, nats(arch_str=other, dataset_seed={"cifar10": [888]}), 0)
    table = read_table(tmp_path, "nasbench201")
    assert [row.name for row in table.rows] == [other, CELL]
    assert table.rows[1].accuracies == {
        "cifar10_test": 90.5,
        "cifar100_test": 70.5,
        "imagenet16_120_test": 40.0,
    }
    assert table.rows[0].accuracies["cifar10_test"] == 91.0
    assert math.isnan(table.rows[0].accuracies["cifar100_test"])


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_nothing_that_a_pickle_names_is_called(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    packed(tmp_path, nats(arch_str=Calls(exec, f"open({str(proof)!r}, 'w')")))
    assert "builtins.exec; only plain values" in refused(tmp_path, "nasbench201")
    packed(tmp_path, nats(arch_str=Calls(np.load, str(proof))))
    assert "only plain values" in refused(tmp_path, "nasbench201")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "000000.pickle.pbz2"),
        ([], "000000.pickle.pbz2"),
        ({"200": {}}, "000000.pickle.pbz2"),
        ({"01": {}, "12": {}, "90": {}}, "is of the size space of NATS-Bench (sss)"),
        ({"12": {}}, "accuracies after 12 epochs alone, and those after 200 are read"),
        (nats(all_results={}), "000000.pickle.pbz2"),
        (nats(dataset_seed=3), "000000.pickle.pbz2"),
        (nats(arch_str=[CELL]), "an arch_str is a string, not list"),
        (
            nats(dataset_seed={"cifar10": ["x" * 10**6]}),
            "has another layout than files of NATS-Bench",
        ),
        (nats(all_results=run_of(10**400), dataset_seed={"cifar10": [777]}), "OverflowError"),
        (nats(arch_str="conv"), "row 1: a cell is 3 groups joined by '+', not 1: 'conv'"),
    ],
)
def test_another_layout_is_one_clear_line(tmp_path: Path, value: Any, message: str) -> None:
    packed(tmp_path, value)
    refusal = refused(tmp_path, "nasbench201")
    assert message in refusal and len(refusal) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_each_protocol(tmp_path: Path, protocol: int) -> None:
    """Those of Python 3; what is read is what Python reads."""
    value = {**nats(), 7: (1, b"x", None, True, [2.5, -(2**40)], "\N{SNOWMAN}" * 300, {}), 8: ()}
    path = packed(tmp_path, 0)
    path.write_bytes(bz2.compress(pickle.dumps(value, protocol)))
    assert load(path) == value
    assert len(read_table(tmp_path, "nasbench201").rows) == 1


DEEP = 10**6


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", None),  # a place among two thousand million
        (b"}p2147483647\n.", None),  # the same, as text
        (b"\x80\x02})" + b"\x85" * DEEP + b"K\x01s.", "a tuple in a tuple"),  # hashed deeply
        (b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.", "not a pickle of plain"),  # 2^60 hashes
        (b"\x80\x02})q\x01" + b"h\x01h\x01\x86q\x01" * 60 + b"K\x01s.", "a tuple in a tuple"),
    ],
)
def test_a_small_file_takes_neither_memory_nor_time(
    tmp_path: Path, hostile: bytes, message: str | None
) -> None:
    """In a process of 4 GB: each made the reader in C take far more, without end, or die."""
    path = packed(tmp_path, 0)
    path.write_bytes(bz2.compress(hostile))
    code = f"""
import resource
from pathlib import Path
from diswot.errors import UserError
from diswot.ranking.tables.nats import load
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
try:
    print(load(Path({str(path)!r})))
except UserError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "{}" if message is None else message in ran.stdout


@pytest.mark.parametrize("data", [b"", b"BZh9", bz2.compress(b"no pickle"), bz2.compress(b"\x80")])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, data: bytes) -> None:
    packed(tmp_path, 0).write_bytes(data)
    assert "000000.pickle.pbz2" in refused(tmp_path, "nasbench201")


# Published tables


STUBBORN = """
from torch import nn

def space(trial):
    first = nn.Linear(trial.suggest_int("one", 1, 9), 4)
    assert first.weight.sum().item() != 0  # the meta device has no values
    return nn.Sequential(first, nn.Linear(4, trial.suggest_int("two", 1, 9)))
"""


def test_parameters_of_a_space_that_needs_weights(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    table = read_table(
        written(tmp_path, "one,two,acc\n1,2,60\n3,4,61\n"), f"{tmp_path}/stubborn.py:space"
    )
    assert [row.params for row in table.rows] == [{"one": 1, "two": 2}, {"one": 3, "two": 4}]
    assert table.targets == ("acc",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "space", "count", "target"),
    [
        ("s0_cifar100.csv", "s0", 64, "distilled_acc"),
        ("nasbench201.csv.gz", "nasbench201", 5000, "cifar10_test"),
        ("nasbench101.csv.gz", "nasbench101", 5000, "cifar10_valid_108"),
        ("vit_autoformer.json", "autoformer", 100, "c100_kd_acc"),
        ("vit_pit.json", "pit", 50, "c100_kd_acc"),
        ("timm_imagenet.csv.gz", "timm_zoo:*,test_*", 707, "top1"),
        ("transnas_micro.csv.gz", "transnas_micro", 1365, "segmentsemantic"),
        ("transnas_macro.csv.gz", "transnas_macro", 1085, "segmentsemantic"),
        ("nasbench_mr.csv.gz", "nasbench_mr", 1002, "cls-50-1000"),
        ("nasbench_macro.csv.gz", "nasbench_macro", 2187, "cifar10_mean"),
    ],
)
def test_a_published_table(name: str, space: str, count: int, target: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"the accuracy table {name} is absent")
    table = read_table(SHARED / name, space)
    assert len(table.rows) == count
    values = [row.accuracies[target] for row in table.rows]
    assert all(5 < value < 100 for value in values if not math.isnan(value))
    assert max(values) > 60
    assert not {"index", "params", "params_m", "macs_m", "vertices"} & set(table.targets)


CONDITIONAL = """
from toys import LinearHead

def space(trial):
    if trial.suggest_int("blocks", 1, 2) == 2:
        trial.suggest_int("expand", 1, 60)
    return LinearHead()
"""


def test_a_parameter_of_some_rows_is_no_accuracy(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CONDITIONAL)
    path = written(tmp_path, "blocks,expand,acc\n1,3,60\n2,50,61\n2,4,62\n")
    assert read_table(path, f"{tmp_path}/mine.py:space").targets == ("acc",)


def test_an_accuracy_with_the_name_of_a_score_is_renamed(tmp_path: Path) -> None:
    path = written(tmp_path, "blocks1,blocks2,blocks3,kd,size\n1,1,1,61.5,3\n1,1,3,62,4\n")
    table = read_table(path, "s0")
    assert table.accuracies == {"kd_acc": [61.5, 62.0]}
    assert choose_target(table.accuracies, "kd") == choose_target(table.accuracies) == "kd_acc"
