"""What had been spent when each candidate finished: by generation alone, and with a reward model's cost added."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.analysis.recorded import Recorded, Rewards

if TYPE_CHECKING:
    import numpy as np

Positions = Mapping[str, "np.ndarray"]
"""By axis, (candidates,): infinite for what never finished, NaN for what was not recorded."""


def spent_when_finished(columns: "Mapping[str, np.ndarray]") -> "tuple[np.ndarray, np.ndarray]":
    """FLOPs and tokens that one scope had spent when each of its rows finished.

    At the moment a row finishes, the rows decoded beside it have spent work too; a row's decode work is taken to grow
    evenly between its first token and its end, which is exact for rows that step together.
    """
    import numpy as np

    finished, started = columns["finished_s"], columns["started_s"]
    if np.isnan(finished).any():
        return np.full(len(finished), np.nan), np.full(len(finished), np.nan)
    first = np.where(np.isnan(columns["first_token_s"]), finished, columns["first_token_s"])
    decode = grown(first, finished, columns["decode_flops"])
    begun = np.concatenate(([0.0], np.cumsum(columns["prefill_flops"][np.argsort(started, kind="stable")])))
    prefill = begun[np.searchsorted(np.sort(started), finished, side="right")]
    return decode + prefill, grown(first, finished, columns["completion_tokens"])


def grown(first: "np.ndarray", finished: "np.ndarray", work: "np.ndarray") -> "np.ndarray":
    """Work done by the time each row finishes, each row's growing evenly from `first` to `finished`.

    What is whole is summed exactly; of what is under way the rates and the rates times their beginnings are summed, so
    that n rows cost n log n.
    """
    import numpy as np

    ends, begins = np.argsort(finished, kind="stable"), np.argsort(first, kind="stable")
    span = finished - first
    rate = np.divide(work, span, out=np.zeros(len(work)), where=span > 1e-9)

    def before(order: "np.ndarray", times: "np.ndarray", what: "np.ndarray") -> "np.ndarray":
        sums = np.concatenate(([0.0], np.cumsum(what[order])))
        return sums[np.searchsorted(times[order], now, side="right")]

    now = finished[ends]
    active = before(begins, first, rate) - before(ends, finished, rate)
    offset = before(begins, first, rate * first) - before(ends, finished, rate * first)
    total = before(ends, finished, work) + np.maximum(now * active - offset, 0.0)
    out = np.empty(len(work))
    out[ends] = np.maximum.accumulate(total)
    return out


def generation_positions(run: Recorded, some: "np.ndarray") -> dict[str, "np.ndarray"]:
    """The positions of the rows `some` of one scope, with the seconds of every reward model taken out."""
    import numpy as np

    columns = {name: column[some] for name, column in run.numbers.items()}
    for name in ("started_s", "first_token_s", "finished_s"):
        columns[name] = columns[name] - pauses_before(run, some, columns[name])
    there = run.there[some]
    spent = {axis: np.full(len(some), np.inf) for axis in ("seconds", "flops", "tokens")}
    flops, tokens = spent_when_finished({name: column[there] for name, column in columns.items()})
    # A strategy counts what it spends on continuations that it gives up, which have no row.
    counted = columns["spent_flops"][there], columns["spent_tokens"][there]
    flops, tokens = (np.where(np.isnan(own), rest, own) for own, rest in zip(counted, (flops, tokens), strict=True))
    spent["seconds"][there], spent["flops"][there], spent["tokens"][there] = columns["finished_s"][there], flops, tokens
    for places in spent.values():
        places[run.cut[some]] = np.inf
    return spent


def pauses_before(run: Recorded, some: "np.ndarray", times: "np.ndarray") -> "np.ndarray":
    """Seconds that the scope's engine had waited for reward models by each of `times`."""
    import numpy as np

    waited = np.zeros(len(times))
    for rewards in run.rewards.values():
        scored = rewards.scored_s[some]
        inside = np.flatnonzero(~np.isnan(scored))
        order = inside[np.argsort(scored[inside], kind="stable")]
        sums = np.concatenate(([0.0], np.cumsum(rewards.reward_s[some][order])))
        waited += sums[np.searchsorted(scored[order], times, side="right")]
    return waited


def charged_positions(generated: Positions, rewards: Rewards, some: "np.ndarray") -> dict[str, "np.ndarray"]:
    """Where each candidate of a scope is available to a reward model's selectors.

    It is the generation's position and what this reward model's scoring cost of everything that finished up to and
    including the candidate; infinite without a score. A reward model spends no tokens of the budget.
    """
    import numpy as np

    order = np.argsort(generated["seconds"], kind="stable")
    scored = np.diff(rewards.scores.starts)[some] > 0
    charged = {}
    for axis, cost in (("seconds", rewards.reward_s), ("flops", rewards.reward_flops), ("tokens", None)):
        added = np.zeros(len(some))
        if cost is not None:
            added[order] = np.cumsum(cost[some][order])
        charged[axis] = np.where(scored, generated[axis] + added, np.inf)
    return charged
