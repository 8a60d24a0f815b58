"""Pages of reports: what they say of each kind of run, and that nothing in one is taken as code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Run
from run_folders import SEARCH, call, distilled, edited, searched

from diswot.data.registry import create_dataset
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.models.weights import load_weights
from diswot.observation.functional import relation_matrix
from diswot.observation.observe import observe
from diswot.proxies.registry import PROXIES
from diswot.reports.formats import duration
from diswot.reports.report import report
from diswot.runs import rebuild
from diswot.spaces.registry import build_network, create_space
from diswot.utils.units import show_count

HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>{{ 7*7 }}[red]x[/red]"


class Tags(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += text


def figures(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'id="figures">(.*?)</script>', page)
    found: dict[str, Any] = json.loads(text)
    return found


def words(page: str) -> str:
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    return words_of(body)


def words_of(part: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", part)).split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distilled(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def page(trained: Path) -> str:
    return report(trained, trained.parent / "page.html").read_text()


def test_the_answer(page: str, trained: Path) -> None:
    found = json.loads((trained / "found.json").read_text())["best"]
    results = {
        name: json.loads((trained / name / "trained.json").read_text())["result"]
        for name in ("teacher", "distilled", "alone")
    }
    text = words(page)
    assert " ".join(f"{k}={v}" for k, v in found["params"].items()) in text
    best = max(results[name]["test_accuracy"] for name in ("distilled", "alone"))
    title = f"Student of s0, {show_count(found['model_params'])} params, {best:.2f} %"
    assert f"<h1>{title}</h1>" in page
    taught = results["teacher"]["test_accuracy"]
    points = f"{abs(best - taught):.2f} points {'above' if best > taught else 'below'}"
    assert f"The student is {points} its teacher's {taught:.2f} %." in text
    assert text.index("trained: the teacher, and the student") < text.index("as scored: student")
    for result in results.values():
        assert f"{result['test_accuracy']:.2f}" in text
    assert "What could not be shown" not in text
    config = json.loads((trained / "run.json").read_text())["config"]
    assert PROXIES[config["proxy"]].summary in text
    columns = "network test accuracy % params MACs depth folder"
    compared = text[text.index(columns) + len(columns) : text.index("Search")]
    places = [line.split()[-1] for line in re.split("student, |teacher: ", compared)[1:]]
    assert places == ["teacher", "alone", "distilled"]
    assert f"depth {4 + 2 * sum(found['params'].values())} teacher: 22" in text


def test_every_chart_has_a_place_and_every_place_a_chart(page: str) -> None:
    places = set(re.findall(r'data-chart="([^"]*)"', page))
    assert places == set(figures(page)) and len(places) == 9


def test_the_relations_are_those_of_the_networks_as_scored(page: str, trained: Path) -> None:
    """Made again here from the options alone."""
    found = json.loads((trained / "found.json").read_text())["best"]
    images, labels = create_dataset("digits", img_size=8).batch(20, 0)
    space = create_space("s0", 10, 8)
    student = fresh(lambda: build_network(space, found["params"]), "gaussian", 0)
    order = labels.argsort(stable=True)
    expected = relation_matrix(observe(student, images[order], labels[order]).last)
    drawn = torch.tensor(figures(page)["scored-student"]["data"][0]["z"])
    assert torch.allclose(drawn, expected, atol=1e-4)
    assert not torch.allclose(
        drawn, torch.tensor(figures(page)["trained-student"]["data"][0]["z"]), atol=1e-2
    )


def test_whose_weights_are_shown(trained: Path, tmp_path: Path) -> None:
    """The default score draws the teacher's weights, `relation` takes the trained ones."""
    weights = trained / "teacher" / "student.safetensors"
    shown = {}
    for proxy in ("default", "relation"):
        options = f"--proxy {proxy} --sampler random --trials 2 --teacher-weights {weights}"
        folder = searched(tmp_path / proxy, options)
        page = report(folder).read_text()
        shown[proxy] = torch.tensor(figures(page)["scored-teacher"]["data"][0]["z"])
        text = words(page)
        assert ("as scored: student and teacher untrained" in text) == (proxy == "default")
        assert ("student untrained, teacher trained" in text) == (proxy == "relation")
    images, labels = create_dataset("digits", img_size=8).batch(20, 0)
    order = labels.argsort(stable=True)
    teacher = create_teacher("resnet20", 10, 8)
    load_weights(teacher, weights)
    expected = relation_matrix(observe(teacher, images[order], labels[order]).last)
    assert torch.allclose(shown["relation"], expected, atol=1e-4)
    assert not torch.allclose(shown["default"], expected, atol=1e-2)
    (folder / "study.journal").write_text(
        (folder / "study.journal").read_text().replace(str(weights), "/gone/weights.pt")
    )
    assert "no such weights: /gone/weights.pt" in words(report(folder).read_text())


def test_a_teacher_that_only_the_training_had(trained: Path, tmp_path: Path) -> None:
    """A search of a fresh teacher, as the README has it; its student is taught by a trained one."""
    folder = searched(tmp_path / "run")
    teacher = trained / "teacher"
    how = "--epochs 1 --batch-size 512 --precision fp32 --quiet"
    call(f"distill {how} --teacher-weights {teacher / 'student.safetensors'}", folder)
    page = report(folder).read_text()
    result = json.loads((teacher / "trained.json").read_text())["result"]
    assert f"teacher: resnet20 {result['test_accuracy']:.2f}" in words(page)
    assert {"scored-teacher", "trained-teacher", "trained-student"} <= figures(page).keys()
    assert "1 epoch " in words(page) and "1 epochs" not in words(page)
    edited(folder / "distilled" / "trained.json", lambda kept: kept["result"].update(student={}))
    assert "trained-teacher" not in figures(report(folder).read_text())


def test_a_front_says_so(tmp_path: Path) -> None:
    folder = searched(tmp_path / "run", "--objectives score,macs --trials 6 --proxy params")
    count = len(json.loads((folder / "found.json").read_text())["front"])
    sentence = f"highest score of the {count} students on the front of score, macs."
    assert sentence in words(report(folder, networks=False).read_text())


def test_the_time_of_a_resumed_search(tmp_path: Path) -> None:
    folder = searched(tmp_path / "run", "--sampler random --trials 3 --proxy params")
    first = json.loads((folder / "found.json").read_text())["seconds"]
    call(f"{SEARCH} --sampler random --trials 6 --proxy params --resume --out {folder}")
    found = json.loads((folder / "found.json").read_text())
    text = words(report(folder, networks=False).read_text())
    assert found["seconds"] > first
    assert text.count(f"time {duration(found['seconds'])}") == 2


def test_the_time_of_a_training_that_is_not_finished(copy: Path) -> None:
    history = (copy / "alone" / "history.jsonl").read_text()
    (copy / "alone" / "trained.json").unlink()
    seconds = sum(json.loads(line)["seconds"] for line in history.splitlines())
    rows = re.findall(r"<tr>(.*?)</tr>", report(copy, networks=False).read_text(), re.DOTALL)
    (row,) = [words_of(row) for row in rows if "not finished" in row]
    assert row.startswith("alone not finished") and row.endswith(f" 2 {duration(seconds)}")


def test_the_page_is_alone(page: str) -> None:
    tags = Tags(page).tags
    for tag, attributes in tags:
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(styles) == 1 and "url(" not in styles[0] and "@import" not in styles[0]
    assert page.count("plotly.js v") == 1


def rename(value: Any, old: str, new: str) -> Any:
    return json.loads(json.dumps(value).replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1]))


def test_hostile_names_are_inert(copy: Path) -> None:
    """In parameters, data, classes, the command, trainings and reasons."""
    for name in ("found.json", "run.json", "study.journal", "distilled/trained.json"):
        path = copy / name
        inner = json.dumps(HOSTILE)[1:-1]
        path.write_text(
            path.read_text()
            .replace('"digits"', f'"{inner}"')
            .replace("blocks1", inner)
            .replace('"resnet20"', f'"{inner}"')
        )
    edited(copy / "run.json", lambda run: run["command"].append(HOSTILE))
    edited(copy / "run.json", lambda run: run["versions"].update({HOSTILE: HOSTILE}))
    edited(copy / "found.json", lambda found: found.update(failures={HOSTILE: 2}))
    place = copy / "<img src=x onerror=alert(3)>"
    shutil.copytree(copy / "distilled", place)
    page = report(copy, copy / "page.html").read_text()
    seen = Tags(page)
    assert len(seen.scripts) == 3 and "img src=x" not in "".join(seen.scripts[1:])
    assert not any(t == "img" and a.get("src") == "x" for t, a in seen.tags)
    assert not any("onerror" in attributes for _, attributes in seen.tags)
    assert "{{ 7*7 }}" in words(page) and "<script>alert" not in page
    assert "HOSTILE" not in page and HOSTILE.split("<img")[0] in unescape(page)


def test_data_that_is_gone_is_said(copy: Path) -> None:
    journal = copy / "study.journal"
    journal.write_text(journal.read_text().replace('"digits"', '"/gone/images"'))
    text = words(report(copy).read_text())
    assert "The features cannot be computed again" in text and "/gone/images" in text


def test_why_a_pretrained_teacher_is_not_drawn(copy: Path) -> None:
    journal = copy / "study.journal"
    text = journal.read_text()
    assert '"pretrained":false' in text
    journal.write_text(text.replace('"pretrained":false', '"pretrained":true'))
    reason = (
        "with its library's pretrained weights, which are not loaded again, since that may need"
    )
    assert reason in words(report(copy).read_text())


def test_without_networks_nothing_is_built(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for build in ("create_space", "create_teacher"):
        monkeypatch.setattr(rebuild, build, lambda *given: pytest.fail("built"))
    text = words(report(copy, networks=False).read_text())
    assert "No network was built" in text


def test_an_unfinished_search_and_one_without_a_score(tmp_path: Path) -> None:
    folder = searched(tmp_path / "run")
    (folder / "found.json").unlink()
    assert "not finished" in words(report(folder, networks=False).read_text())
    journal = folder / "study.journal"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:4]))
    assert "No candidate has a score yet" in words(report(folder).read_text())


def test_students_that_were_verified(trained: Path, tmp_path: Path) -> None:
    weights = trained / "teacher" / "student.safetensors"
    more = f"--sampler random --trials 4 --proxy params --teacher-weights {weights}"
    folder = searched(tmp_path / "run", f"{more} --verify 2 --verify-epochs 1")
    found = json.loads((folder / "found.json").read_text())
    page = report(folder).read_text()
    best, rows = found["verified"]["best"], found["verified"]["trained"]
    assert f"highest accuracy of the {len(rows)} students that were distilled briefly: " in words(
        page
    )
    assert f"{best['accuracy']:.2f} % on the held-out split" in words(page)
    assert {row["start"]["from"] for row in rows} == {"teacher"}
    assert "The trainings began with weights of the teacher, 100% of the param" in words(page)
    assert figures(page)["verified"]["data"][0]["y"] == [row["accuracy"] for row in rows]
    assert figures(page)["verified"]["data"][0]["x"] == [row["student"]["score"] for row in rows]


def test_the_winner_is_the_recorded_one_where_the_trials_cannot_be_read(copy: Path) -> None:
    (copy / "study.journal").unlink()
    winner = {"blocks1": 1, "blocks2": 1, "blocks3": 1}
    change = {"params": winner, "score": 7.0, "trial": 77, "model_params": 78330, "accuracy": 93.0}
    edited(copy / "found.json", lambda found: found["best"].update(change))
    text = words(report(copy, networks=False).read_text())
    assert "Student of s0, 78.3K params" in text
    assert "blocks1=7 blocks2=3 blocks3=3" in text, "the first of the table differs in all"


def test_candidates_are_named_by_what_differs_and_tables_scroll(folder: Path) -> None:
    page = report(folder, folder.parent / "named.html", networks=False).read_text()
    best = json.loads((folder / "found.json").read_text())["best"]["params"]
    names = re.findall(r'<td><a href="#trial-\d+">([^<]+)</a>', page)
    assert names[0] == "blocks1=7 blocks2=3 blocks3=3" and len(names) > 3
    for name in names[1:]:
        parts = dict(part.split("=") for part in name.split())
        assert parts and all(str(best[key]) != value for key, value in parts.items())
    assert page.count("<table") == page.count('<div class="scroll"><table')
    assert "limit 300K" in json.dumps(figures(page)["against-params"])


def test_trainings_alone(trained: Path, tmp_path: Path) -> None:
    text = words(report(trained / "alone", tmp_path / "page.html").read_text())
    result = json.loads((trained / "alone" / "trained.json").read_text())["result"]
    assert f"{result['test_accuracy']:.2f} % on the test images" in text
    assert "Search" not in text


def test_a_rank_study(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"1,1,{c},{50 + c}" for c in (1, 3, 5, 7)]
    table.write_text("\n".join(["blocks1,blocks2,blocks3,distilled_acc", *rows]))
    call(f"rank --table {table} --teacher resnet20 --data digits --image-size 8 --proxies params "
         "--batch-size 4 --resamples 20 --quiet --json", "--out", tmp_path / "run")  # fmt: skip
    page = report(tmp_path / "run").read_text()
    assert "distilled_acc of 4 architectures" in words(page)
    assert "params and macs and depth and size rank best: τ = 1.000" in words(page)
    scores = ("params", "macs", "depth", "size")
    assert set(figures(page)) == {"taus-0", *(f"scatter-0-{name}" for name in scores)}
    points = figures(page)["scatter-0-depth"]["data"][0]
    assert points["y"] == [51, 53, 55, 57] and points["x"] == [10, 14, 18, 22]


def test_the_command(run: Run, copy: Path, tmp_path: Path) -> None:
    ran = run(f"report {copy} --no-networks --json --out {tmp_path}/deep/page.html")
    assert ran.json == {"report": f"{tmp_path}/deep/page.html"}
    assert (tmp_path / "deep" / "page.html").stat().st_size > 1e6
    assert "no search, no training and no rank study" in run(f"report {tmp_path}/deep").mistake()
    assert run(f"report {copy} --storage nonsense://x").mistake()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("distilled/trained.json", lambda kept: kept["result"].update(losses=3, teacher=[1])),
        ("found.json", lambda kept: kept.update(best=[1], top={"a": 1}, failures=7)),
        ("run.json", lambda kept: kept.update(versions=[1], hardware=2, config="x", study=5)),
        ("run.json", lambda kept: kept["config"].update(teacher=None, space=7, batch_size="many")),
    ],
)
def test_what_diswot_does_not_write_is_told_in_one_line(
    run: Run, copy: Path, name: str, change: Callable[[Any], None]
) -> None:
    edited(copy / name, change)
    ran = run(f"report {copy} --quiet")
    assert ran.status == 0 or "are not what diswot writes" in ran.mistake()


def test_passwords_are_left_out(copy: Path) -> None:
    secret: Callable[[Any], None] = lambda run: run.update(  # noqa: E731
        command=["diswot", "search", "--storage=postgresql://me:hunter2@host/db"]
    )
    edited(copy / "run.json", secret)
    page = report(copy, networks=False).read_text()
    assert "hunter2" not in page and "postgresql://me:***@host/db" in unescape(page)
