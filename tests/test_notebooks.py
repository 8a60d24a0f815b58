"""The notebooks run as they are."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=300, resources=resources)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own packages
        asyncio.run(client.async_execute())
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")


def test_they_are_kept_without_results() -> None:
    assert len(NOTEBOOKS) == 2
    assert all('"outputs": []' in path.read_text() for path in NOTEBOOKS)
    assert not any('"image/png"' in path.read_text() for path in NOTEBOOKS)
