"""Results as data frames and as HTML tables."""

from __future__ import annotations

import sys

import pytest

from diswot.errors import UserError
from diswot.utils.notebook import Curve, data_frame, figure, frame_html, html_table


def test_a_table_escapes_its_texts() -> None:
    page = html_table(("a<", "b"), [("<i>", 1), ("x & y", 2.5)])

    assert page == (
        "<table><tr><th>a&lt;</th><th>b</th></tr><tr><td>&lt;i&gt;</td><td>1</td></tr>"
        "<tr><td>x &amp; y</td><td>2.5</td></tr></table>"
    )


def test_a_data_frame_is_indexed_and_lacks_what_a_row_lacks() -> None:
    pytest.importorskip("pandas", reason="needs the extra pandas")

    frame = data_frame([{"name": "x", "a": 1}, {"name": "y", "b": 2.0}], "name")

    assert list(frame.index) == ["x", "y"] and list(frame.columns) == ["a", "b"]
    assert frame.isna().to_numpy().tolist() == [[False, True], [True, False]]


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(UserError, match=r"needs pandas: pip install 'diswot\[pandas\]'"):
        data_frame([{"name": "x"}], "name")
    assert frame_html("a<b", lambda: data_frame([{"name": "x"}], "name")) == "<p>a&lt;b</p>"


def test_a_figure_has_the_points_and_escapes_their_texts() -> None:
    curves = [
        Curve("a", (1, 2), (0.5, 0.25)),
        Curve("b", [3.0], [4.0], ["width=<3>"], "markers"),
    ]

    made = figure(curves, "right", "up").to_plotly_json()

    assert [(each["name"], each["x"], each["y"], each["mode"]) for each in made["data"]] == [
        ("a", [1, 2], [0.5, 0.25], "lines+markers"),
        ("b", [3.0], [4.0], "markers"),
    ]
    assert [each.get("text") for each in made["data"]] == [None, ["width=&lt;3&gt;"]]
    axes = [made["layout"][name]["title"]["text"] for name in ("xaxis", "yaxis")]
    assert axes == ["right", "up"]
