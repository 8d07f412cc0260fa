"""docs/tutorial.ipynb: its cells run in order on what `make reproduce` leaves, here of a small model."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY, Tiny
from nbclient import NotebookClient

TUTORIAL = REPOSITORY / "docs" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def written() -> nbformat.NotebookNode:
    return nbformat.read(TUTORIAL, as_version=4)


@pytest.fixture(scope="module")
def executed(
    written: nbformat.NotebookNode, tiny: Tiny, finished_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> nbformat.NotebookNode:
    """The notebook after all cells ran beside `runs/reproduce`; an error in a cell is raised."""
    folder = tmp_path_factory.mktemp("tutorial")
    reproduced = folder / "runs" / "reproduce"
    shutil.copytree(finished_run, reproduced / "run")
    shutil.copytree(tiny.root / "scenes", reproduced / "scenes")
    shutil.copy(tiny.root / "model.safetensors", reproduced)
    notebook = nbformat.from_dict(written)
    with pytest.MonkeyPatch.context() as patch:
        # As in an activated environment: `!hvx` is the one that is tested.
        patch.syspath_prepend(str(REPOSITORY))
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell: nbformat.NotebookNode) -> str:
    outputs = cell.outputs
    return "".join(one.get("text", one.get("data", {}).get("text/plain", "")) for one in outputs)


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def test_each_cell_gives_what_the_page_shows(
    written: nbformat.NotebookNode, executed: nbformat.NotebookNode
) -> None:
    shown, found = code(written), code(executed)
    assert [pictures(cell) for cell in shown] == [pictures(cell) for cell in found]
    assert [bool(texts(cell)) for cell in shown] == [bool(texts(cell)) for cell in found]
    assert sum(map(pictures, shown)) >= 5


def test_the_page_was_stored_after_one_run_from_top_to_bottom(written: nbformat.NotebookNode) -> None:
    assert [cell.execution_count for cell in code(written)] == list(range(1, len(code(written)) + 1))
    outputs = [output for cell in code(written) for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert "Error" not in "".join(map(texts, code(written)))


def test_the_commands_do_what_the_text_says(executed: nbformat.NotebookNode) -> None:
    explained, measured = map(texts, code(executed)[-2:])
    assert "questions explained in" in explained
    for name in ("Pointing game", "Proposed (Eq. 2)", "Summed attention", "Gradient"):
        assert name in measured


def test_links_of_the_page_lead_somewhere(written: nbformat.NotebookNode) -> None:
    linked = {
        part.split(")")[0]
        for cell in written.cells
        if cell.cell_type == "markdown"
        for part in cell.source.split("](")[1:]
    }
    assert linked
    assert [link for link in linked if not (TUTORIAL.parent / link).is_file()] == []
