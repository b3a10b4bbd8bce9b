"""Stored runs in a notebook: `run = harness.open_run(DIR)`, then frames of pandas and axes of matplotlib.

Nothing is computed here: the frames hold what `ttc select` and `ttc report` print and draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from harness.analysis.summary import Axis
from harness.errors import UserError, choices
from harness.storage.runs import Run
from harness.storage.runs import open_run as open_stored

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

LABELS: dict[Axis, str] = {
    "k": "samples per problem",
    "seconds": "seconds per problem",
    "flops": "FLOPs per problem",
    "tokens": "tokens per problem",
}


def open_run(path: str | Path) -> "StoredRun":
    """Open a run's folder for reading. Raises UserError when it is no run."""
    return StoredRun(open_stored(Path(path)))


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run on disk; `stored.manifest` holds its facts."""

    stored: Run

    def frame(self) -> "pandas.DataFrame":
        """One row per completion: its stored columns (units in their names), its answer and its verdict."""
        import pyarrow.compute as pc

        from harness.storage.records import COMPLETIONS, VERDICTS, read_parts

        keys = ["problem_id", "sample_index"]
        completions = read_parts(self.stored.path / "completions", COMPLETIONS).to_pandas()
        verdicts = read_parts(self.stored.path / "verdicts", VERDICTS)
        verdicts = verdicts.set_column(2, "answer", pc.cast(verdicts["answer"], "string")).to_pandas()
        # Of two rows for one completion the later stands, as everywhere.
        completions, verdicts = (table.drop_duplicates(keys, keep="last") for table in (completions, verdicts))
        joined: pandas.DataFrame = completions.merge(verdicts, on=keys, how="left")
        return joined.sort_values(keys, ignore_index=True)

    def problems(self) -> "pandas.DataFrame":
        """One row per problem, in task order: its id, the exact prompt, the gold answer and what else the task knew."""
        import pandas

        return pandas.DataFrame(self.stored.problems())

    def curves(
        self, selectors: Sequence[str] | None = None, axis: Axis | None = None, options: Sequence[str] = ()
    ) -> "pandas.DataFrame":
        """One row per point: selector, axis, x, value, low, high, n, kind, reward_model, charged.

        Values are fractions in 0..1, `low` and `high` the 95 % interval over problems.

        Args:
            selectors: names as `--selector` takes them; without them those that `ttc select` shows.
            axis: only along `k`, `seconds`, `flops` or `tokens`.
            options: of the selectors, as `-S` takes them: `["aggregate=min"]`.

        Raises UserError on a selector or axis that there is none of.
        """
        import pandas

        from harness.analysis.summarise import has_scores, summarise
        from harness.cli.options import default_selectors
        from harness.plugins import load_selectors

        if axis is not None and axis not in get_args(Axis):
            raise UserError(f"there is no axis '{axis}'; write one of {choices(list(get_args(Axis)))}")
        names = list(selectors) if selectors else default_selectors(has_scores(self.stored))
        summary = summarise(self.stored, load_selectors(names, options), skip_unscored=not selectors)
        rows = [
            {
                "selector": curve.selector, "axis": curve.axis, "x": point.x, "value": point.value, "low": point.low,
                "high": point.high, "n": point.n, "kind": curve.kind, "reward_model": curve.reward_model,
                "charged": curve.charged,
            }
            for curve in summary.curves if axis in (None, curve.axis) for point in curve.points
        ]  # fmt: skip
        columns = ["selector", "axis", "x", "value", "low", "high", "n", "kind", "reward_model", "charged"]
        return pandas.DataFrame(rows, columns=columns)

    def plot(
        self, selectors: Sequence[str] | None = None, axis: Axis = "seconds", ax: "Axes | None" = None,
        options: Sequence[str] = (),
    ) -> "Axes":  # fmt: skip
        """Draw the curves along one axis with their intervals, on `ax` or on new axes; returns the axes.

        Of a selector that reads scores the curve with the reward model's cost in it is drawn. Raises UserError as
        `curves` does, and where the run has nothing along this axis.
        """
        import matplotlib.pyplot as plt

        found = self.curves(selectors, axis, options)
        found = found[found["charged"].isna() | (found["charged"] == True)]  # noqa: E712  # a column of objects
        if found.empty:
            raise UserError(f"'{self.stored.name}' has nothing along {axis}; look at the axes that curves() has")
        axes = plt.subplots()[1] if ax is None else ax
        for name, curve in found.groupby("selector", sort=False):
            style = "default" if axis == "k" else "steps-post"
            (line,) = axes.plot(curve["x"], curve["value"], drawstyle=style, label=f"{self.stored.name}: {name}")
            step: Literal["post"] | None = None if axis == "k" else "post"
            axes.fill_between(curve["x"], curve["low"], curve["high"], step=step, color=line.get_color(), alpha=0.15)
        if axis != "seconds":
            axes.set_xscale("log", base=2 if axis == "k" else 10)
        per_run = self.stored.spec["protocol"] == "throughput" and axis != "k"
        axes.set(xlabel=LABELS[axis].replace("per problem", "of the run") if per_run else LABELS[axis])
        axes.set_ylabel("accuracy")
        axes.legend()
        return axes
