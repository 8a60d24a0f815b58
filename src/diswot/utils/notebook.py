"""Results as pandas data frames and as tables of a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from diswot.utils.optional_imports import imported

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(rows: Iterable[Mapping[str, Any]], index: str) -> DataFrame:
    """Return a pandas data frame.

    Args:
        rows: One mapping a row, from names of columns to values.
        index: Name of the column that names the rows.

    Raises:
        UserError: pandas is not installed.
    """
    pandas = imported("pandas", "to_dataframe", "pandas")
    frame: DataFrame = pandas.DataFrame(list(rows)).set_index(index)
    return frame


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table; all texts are escaped.

    Args:
        columns: Names of the columns.
        rows: Cells of each row.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
