"""Runs in a notebook: the frames against arithmetic by hand, the axes, and the example notebook executed."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from recorded_runs import write_run

import harness
from harness.errors import UserError
from harness.notebook import StoredRun

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "reading-a-run.ipynb"
CORRECT = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], bool)
SECONDS = np.array([[1.0, 2.0, 3.0], [0.5, 1.5, 2.5], [4.0, 5.0, 6.0]])


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return harness.open_run(write_run(tmp_path, "run", CORRECT, SECONDS).path)


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    yield
    plt.close("all")


def test_the_frame_has_a_row_for_every_completion(run: StoredRun) -> None:
    frame = run.frame()
    assert (frame["verdict"] == "correct").tolist() == CORRECT.ravel().tolist()
    assert frame["finished_s"].tolist() == SECONDS.ravel().tolist()
    assert list(frame["sample_index"]) == [0, 1, 2] * 3
    assert list(run.problems()["gold"]) == ["4"] * 3


def test_curves_are_those_of_the_command_line(run: StoredRun) -> None:
    frame = run.curves(["coverage"], axis="k")
    # Of one problem two of three are right, of one none, of one all.
    assert frame["x"].tolist() == [1, 2, 3]
    assert frame["value"].tolist() == pytest.approx([(2 / 3 + 0 + 1) / 3, 2 / 3, 2 / 3])
    assert set(run.curves()["axis"]) == {"k", "seconds", "tokens"}
    in_time = run.curves(["first"], axis="seconds")
    assert in_time["value"].iloc[-1] == pytest.approx(2 / 3)
    assert set(in_time["selector"]) == {"first"}


def test_plot_draws_on_the_axes_it_is_given(run: StoredRun) -> None:
    import matplotlib.pyplot as plt

    _, axes = plt.subplots()
    assert run.plot(["coverage", "majority"], axis="k", ax=axes) is axes
    (coverage, majority) = axes.get_lines()
    assert coverage.get_label() == "run: coverage"
    frame = run.curves(["majority"], axis="k")
    assert np.asarray(majority.get_ydata()).tolist() == frame["value"].tolist()
    assert run.plot(["first"]).get_xlabel() == "seconds per problem"


def test_what_is_not_there_is_told(run: StoredRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no axis 'watts'; write one of flops, k, seconds, tokens"):
        run.curves(axis="watts")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no selector named 'luck'"):
        run.curves(["luck"])
    with pytest.raises(UserError, match="has nothing along flops"):
        run.plot(axis="flops")
    with pytest.raises(UserError, match="no run at"):
        harness.open_run(tmp_path / "nowhere")
    with pytest.raises(AttributeError, match="has no attribute 'open_rune'"):
        harness.open_rune  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, harness; print([name for name in ('numpy', 'pyarrow', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_example_notebook_is_stored_without_outputs() -> None:
    import json

    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("nbclient", "ipykernel")),
    reason="needs nbclient and ipykernel",
)
@pytest.mark.filterwarnings("ignore")  # of jupyter's packages
def test_the_example_notebook_runs(run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("TTC_RUN", str(run.stored.path))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=600, kernel_name="python3").execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "0.556" in "".join(output.get("data", {}).get("text/plain", "") for output in outputs)
