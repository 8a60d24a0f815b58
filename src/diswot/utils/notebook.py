"""Results as pandas data frames, as tables and as figures of a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from diswot.errors import UserError
from diswot.utils.optional_imports import imported

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

Mode = Literal["markers", "lines+markers"]

ROWS = 20  # rows of a data frame that a notebook shows


class Curve(NamedTuple):
    """Points of a figure.

    Attributes:
        name: Name in the legend.
        xs: Their places on the axis to the right.
        ys: Their places on the axis upwards; texts where the axis names rows.
        texts: What is shown where the pointer is on a point; empty for the numbers alone.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float] | Sequence[str]
    texts: Sequence[str] = ()
    mode: Mode = "lines+markers"


def figure(curves: Iterable[Curve], x: str, y: str) -> Figure:
    """Return a Plotly figure; a notebook draws it, `figure.show()` opens a browser.

    `x` and `y` are the titles of the axes.
    """
    import plotly.graph_objects as go

    made = go.Figure()
    for name, xs, ys, texts, mode in curves:
        shown = {"text": [escape(text, quote=False) for text in texts]} if texts else {}
        made.add_scatter(x=list(xs), y=list(ys), mode=mode, name=name, **shown)
    made.update_layout(xaxis_title=x, yaxis_title=y, template="plotly_white")
    return made


def panels(drawn: Mapping[str, Sequence[Curve]], x: str, y: str) -> Figure:
    """Return a Plotly figure with a panel, and axes, for each title and its curves."""
    from plotly.subplots import make_subplots

    made: Figure = make_subplots(1, len(drawn), subplot_titles=list(drawn))
    for place, curves in enumerate(drawn.values(), 1):
        for trace in figure(curves, x, y).data:
            made.add_trace(trace, row=1, col=place)
        made.update_xaxes(title_text=x, col=place)
        made.update_yaxes(title_text=y, col=place)
    made.update_layout(template="plotly_white")
    return made


def data_frame(rows: Iterable[Mapping[str, Any]], index: str) -> DataFrame:
    """Return a pandas data frame of mappings from names of columns to values.

    `index` is the name of the column that names the rows, which exists even without any row.

    Raises:
        UserError: pandas is not installed.
    """
    pandas = imported("pandas", "to_dataframe", "pandas")
    frame: DataFrame = pandas.DataFrame(list(rows) or {index: []}).set_index(index)
    return frame


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table; all texts are escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def frame_html(title: str, to_dataframe: Callable[[], DataFrame]) -> str:
    """Return a title above the HTML of a data frame; the title alone if pandas is missing."""
    head = f"<p>{escape(title)}</p>"
    try:
        return head + str(to_dataframe().to_html(max_rows=ROWS))
    except UserError:
        return head
