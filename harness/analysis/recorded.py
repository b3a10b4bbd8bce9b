"""A run's columns as arrays, read part by part: no text and no Python object per sample.

Rows lie in the order of the problems and within a problem of the sample index. A sample that was asked for and never
begun has a row too; a run of recorded completions has exactly the rows it was given, however many a problem has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import StepScores
from harness.errors import UserError
from harness.storage.records import COMPLETIONS, SCORES, VERDICTS, read_parts
from harness.storage.runs import Run

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

KEY = ("problem_id", "sample_index")
TIMES = ("started_s", "first_token_s", "finished_s")
WORK = ("completion_tokens", "prefill_flops", "decode_flops", "spent_flops", "spent_tokens")
LARGEST = 1e30
"""Of seconds, tokens and FLOPs that can have been measured, so that sums and products of them stay finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Rewards:
    """One reward model's scores and what each cost: arrays over the rows; `scored_s` is NaN where scored afterwards."""

    scores: StepScores
    scored_s: "np.ndarray"
    reward_s: "np.ndarray"
    reward_flops: "np.ndarray"


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """One run as arrays over its rows; problem i has the rows `starts[i]` to `starts[i + 1]`.

    `completion_row` and `verdict_row` say where a row's text and answer lie in the stored parts laid end to end, -1 for
    nowhere. `cut` marks what has no finish: never begun, cut by the deadline, failed, dropped.
    """

    problem_ids: Sequence[str]
    starts: "np.ndarray"
    sample_index: "np.ndarray"
    completion_row: "np.ndarray"
    verdict_row: "np.ndarray"
    cut: "np.ndarray"
    correct: "np.ndarray"
    classes: "np.ndarray"
    numbers: "Mapping[str, np.ndarray]"
    rewards: Mapping[str, Rewards]
    counts: Mapping[str, int]

    @property
    def there(self) -> "np.ndarray":
        """Which rows have a completion."""
        return self.completion_row >= 0


def numbers_of(table: "pa.Table", name: str) -> "np.ndarray":
    """A numeric column as floats, NaN for null. Raises UserError on what nobody measured, such as infinite seconds."""
    import numpy as np

    column = np.asarray(table[name].cast("float64", safe=False).to_numpy(), float)
    beyond = column[np.abs(column) > LARGEST]
    if len(beyond):
        raise UserError(
            f"the run has rows with {name} = {beyond[0]:g}, which nobody measured; get it again from where it was made"
        )
    return column


def keys_of(table: "pa.Table", problem_ids: Sequence[str]) -> "np.ndarray":
    """(rows,) the problem's number in the upper and the sample index in the lower 32 bits; -1 for a stranger's row."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pa.array(problem_ids, table.schema.field("problem_id").type)
    problem = pc.fill_null(pc.index_in(table["problem_id"], value_set=known), -1).to_numpy().astype(np.int64)
    return np.where(problem < 0, -1, (problem << 32) + table["sample_index"].to_numpy())


def rows_of(keys: "np.ndarray", wanted: "np.ndarray") -> "np.ndarray":
    """For each of the sorted `wanted` keys the last row of `keys` that has it, -1 for none."""
    import numpy as np

    found = np.full(len(wanted), -1)
    if len(wanted):
        places = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
        known = wanted[places] == keys
        # Of the rows that meet in one place the last written is the one that stands.
        found[places[known]] = np.flatnonzero(known)
    return found


def picked(column: "np.ndarray", rows: "np.ndarray", missing: Any) -> "np.ndarray":
    """The column at these rows, `missing` where the row is -1."""
    import numpy as np

    if not len(column):
        return np.full(len(rows), missing)
    found: np.ndarray = np.where(rows >= 0, column[rows], missing)
    return found


def read_recorded(run: Run) -> Recorded:
    """Read a run's columns. Raises UserError when the run has no completions yet, unless its budgets let none begin."""
    import numpy as np

    problem_ids = [row["problem_id"] for row in run.problems()]
    table = read_parts(run.path / "completions", COMPLETIONS, [*KEY, "finish_reason", *TIMES, *WORK])
    if not len(table) and run.manifest["validity"]["verdict"] != "VALID":
        raise UserError(f"'{run.path}' has no completions yet; run the command that made it again")
    keys = keys_of(table, problem_ids)
    wanted = np.unique(keys[keys >= 0])
    if run.spec.get("engine") != "recorded":
        asked = (np.arange(len(problem_ids))[:, None] << 32) + np.arange(run.spec["samples"])
        wanted = np.unique(np.concatenate((wanted, asked.ravel())))
    rows = rows_of(keys, wanted)
    reasons = table["finish_reason"].to_numpy()
    cut = picked(np.isin(reasons, ["deadline", "error", "dropped"]), rows, True).astype(bool)
    numbers = {name: picked(numbers_of(table, name), rows, np.nan) for name in (*TIMES, *WORK)}
    counts = {f"finish_{name}": n for name, n in counted(reasons[rows[rows >= 0]]).items()}
    verdict_row, correct, classes, outcomes = read_verdicts(run, problem_ids, wanted)
    return Recorded(
        problem_ids, np.searchsorted(wanted >> 32, np.arange(len(problem_ids) + 1)), wanted & 0xFFFFFFFF, rows,
        verdict_row, cut, correct, classes, numbers, read_rewards(run, problem_ids, wanted), outcomes | counts,
    )  # fmt: skip


def counted(values: "np.ndarray") -> dict[str, int]:
    """How often each value occurs."""
    import numpy as np

    names, counts = np.unique(values.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def read_verdicts(
    run: Run, problem_ids: Sequence[str], wanted: "np.ndarray"
) -> "tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]":
    """Of each wanted row: where its verdict lies, whether it is correct, its answer class; and the counts."""
    import numpy as np

    table = read_parts(run.path / "verdicts", VERDICTS, [*KEY, "verdict", "answer_class"])
    rows = rows_of(keys_of(table, problem_ids), wanted)
    verdicts = table["verdict"].to_numpy()
    classes = np.nan_to_num(numbers_of(table, "answer_class"), nan=-1).astype(int)
    correct = picked(verdicts == "correct", rows, False).astype(bool)
    return rows, correct, picked(classes, rows, -1), counted(verdicts[rows[rows >= 0]])


def read_rewards(run: Run, problem_ids: Sequence[str], wanted: "np.ndarray") -> dict[str, Rewards]:
    """The scores of each reward model, in the order in which the models first appear.

    One that the run was made with is there even if its budgets left it no time to score anything.
    """
    import numpy as np
    import pyarrow.compute as pc

    costs = ("scored_s", "reward_s", "reward_flops")
    table = read_parts(run.path / "scores", SCORES, [*KEY, "reward_model", "scores", *costs])
    found: dict[str, Rewards] = {}
    for name in dict.fromkeys([*table["reward_model"].unique().to_pylist(), *run.spec.get("reward_models", ())]):
        own = table.filter(pc.equal(table["reward_model"], name))
        rows = rows_of(keys_of(own, problem_ids), wanted)
        lists = own["scores"].combine_chunks()
        values = lists.flatten().to_numpy(zero_copy_only=False)
        lengths = np.append(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(), 0)
        logits = bool((values < 0).any())
        every = StepScores(values, np.concatenate(([0], np.cumsum(lengths))), logits)
        # The empty row that was put after the last stands for every row without a score.
        scored_s, reward_s, reward_flops = (picked(numbers_of(own, cost), rows, np.nan) for cost in costs)
        found[name] = Rewards(every.take(rows), scored_s, np.nan_to_num(reward_s), np.nan_to_num(reward_flops))
    return found
