"""A run as statistics see it: which row stands, when texts are read, and where a reward model puts a candidate."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import plugins
from harness.analysis.bank import Item, load_bank
from harness.analysis.curves import curves_of, value_of, values_along, values_at_k, views_of
from harness.analysis.summarise import summarise
from harness.errors import UserError
from harness.nouns import Candidate, Completion, Selector
from harness.storage.runs import Run, make_run

VALID = {"verdict": "VALID", "reasons": [], "mend": []}


def completion(problem: str, index: int, finished_s: float, text: str = "", reason: Any = "stop") -> Completion:
    return Completion(
        problem, index, text or f"{problem} {index}", reason, 3, 10, 0, 0.0, 0.0, 1.0, finished_s, 1.0, 5.0, 20.0
    )


def verdict(problem: str, index: int, answer: str | None, answer_class: int | None) -> dict[str, Any]:
    outcome = "no_answer" if answer is None else "correct" if answer == "4" else "wrong"
    return {
        "problem_id": problem, "sample_index": index, "answer": answer, "answer_class": answer_class,
        "verdict": outcome, "reason": "made", "ms": 0.1,
    }  # fmt: skip


def score(
    problem: str, index: int, model: str, scores: list[float], scored_s: float | None = None,
    reward_s: float = 0.0, reward_flops: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    return {
        "problem_id": problem, "sample_index": index, "reward_model": model, "scores": scores, "scored_s": scored_s,
        "reward_s": reward_s, "reward_flops": reward_flops,
    }  # fmt: skip


def run_of(path: Path, samples: int = 3, problems: tuple[str, ...] = ("a", "b"), **spec: Any) -> Run:
    asked = {
        "model": "made", "engine": "none", "task": "t", "protocol": "latency", "budget": None, "samples": samples,
        "sampling": None,
    }  # fmt: skip
    heads = [{"problem_id": name, "prompt": f"{name}?", "gold": "4", "meta": {}} for name in problems]
    run = make_run(path, asked | spec, heads)
    run.manifest |= {"engine": {}, "validity": VALID}
    run.save()
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Problem a: three samples, the last cut by the deadline; problem b: one that finished, two never begun."""
    made = run_of(tmp_path / "run")
    made.add_completions([completion("a", 1, 2.0), completion("a", 0, 4.0), completion("a", 2, 5.0, reason="deadline")])
    made.add_completions([completion("b", 0, 3.0)])
    made.add_verdicts([verdict("a", 0, "5", 0), verdict("a", 1, "4", 1), verdict("a", 2, None, None)])
    made.add_verdicts([verdict("b", 0, "4", 0)])
    return made


def test_rows_lie_in_order_and_what_never_began_stands_without_an_answer(run: Run) -> None:
    first, second = load_bank(run)
    assert (first.problem_id, first.prompt, second.problem_id) == ("a", "a?", "b")
    assert first.graded.correct.tolist() == [False, True, False]
    assert first.graded.classes.tolist() == [0, 1, -1]
    assert first.graded.finished_s.tolist() == [4.0, 2.0, math.inf]
    assert first.positions["seconds"].tolist() == [4.0, 2.0, math.inf]
    assert second.graded.classes.tolist() == [0, -1, -1]
    assert second.positions["tokens"].tolist() == [10.0, math.inf, math.inf]
    assert second.graded.completion_tokens.tolist() == [10, 0, 0]


def test_candidates_are_built_with_their_texts_when_they_are_looked_at(run: Run) -> None:
    first, second = load_bank(run)
    assert first.graded.candidates[1] == Candidate(1, "a 1", "4", 1, 10, 2.0)
    assert [one.text for one in first.graded.candidates] == ["a 0", "a 1", "a 2"]
    assert second.graded.candidates[2] == Candidate(2, "", None, None, 0, math.inf)
    # A selector over candidates sees the same as one over columns.
    longest = Selector("longest", select=lambda prompt, some: max(some, key=lambda one: one.text, default=None))
    assert values_along(longest, [first, second], "seconds", [1.0, 2.0, 3.0, 9.0]).tolist() == [
        [0.0, 1.0, 1.0, 1.0],
        [0.0, 0.0, 1.0, 1.0],
    ]


def test_the_row_written_last_stands(run: Run) -> None:
    run.add_verdicts([verdict("a", 0, "4", 1)])
    run.add_scores([score("a", 0, "R", [0.1]), score("a", 1, "R", [0.2, 0.3])])
    run.add_scores([score("a", 0, "R", [0.9])])
    first, _ = load_bank(run)
    assert first.graded.correct.tolist() == [True, True, False]
    assert [first.scores["R"].row(i) for i in range(3)] == [(0.9,), (0.2, 0.3), ()]
    assert first.graded.candidates[0].answer == "4"
    assert summarise(run, [plugins.load_selector("coverage")]).counts == {
        "correct": 3, "no_answer": 1, "finish_stop": 3, "finish_deadline": 1,
    }  # fmt: skip


def test_recorded_runs_keep_every_sample_whatever_its_number(tmp_path: Path) -> None:
    made = run_of(tmp_path / "run", samples=2, engine="recorded")
    made.add_completions(
        [completion("a", i, math.nan) for i in (1, 2, 7)] + [completion("b", i, math.nan) for i in (1, 2)]
    )
    made.add_verdicts([verdict("a", i, "4" if i == 7 else "5", i) for i in (1, 2, 7)])
    items = load_bank(made)
    assert [len(item.graded) for item in items] == [3, 2]
    assert items[0].graded.sample_index.tolist() == [1, 2, 7]
    coverage = plugins.load_selector("coverage")
    assert values_at_k(coverage, items, [1, 2])[0].tolist() == pytest.approx([1 / 3, 2 / 3])


def test_a_reward_models_time_and_flops_are_taken_out_and_added(tmp_path: Path) -> None:
    """Two samples end at 2 s, are scored by 2.5 s while the third waits; it ends at 4.5 s and is scored afterwards."""
    made = run_of(tmp_path / "run", problems=("a",), samples=4)
    made.add_completions(
        [
            completion("a", 0, 2.0),
            completion("a", 1, 2.0),
            completion("a", 2, 4.5),
            completion("a", 3, 9, reason="deadline"),
        ]
    )
    made.add_verdicts([verdict("a", 0, "5", 0), verdict("a", 1, "4", 1), verdict("a", 2, "4", 1)])
    made.add_scores([score("a", i, "R", [0.5], 2.5, 0.25, 7.0) for i in (0, 1)])
    made.add_scores([score("a", 2, "R", [0.5], None, 1.0, 9.0)])
    made.add_scores([score("a", 1, "S", [0.5], None, 0.5, 0.0)])
    (item,) = load_bank(made)
    assert item.positions["seconds"].tolist() == [2.0, 2.0, 4.0, math.inf]
    charged = item.charged["R"]
    assert charged["seconds"].tolist() == [2.25, 2.5, 5.5, math.inf]
    assert charged["flops"][:3] - item.positions["flops"][:3] == pytest.approx([7.0, 14.0, 23.0])
    assert charged["tokens"].tolist() == item.positions["tokens"].tolist()
    # The other model scored sample 1 alone, afterwards.
    assert item.charged["S"]["seconds"].tolist() == [math.inf, 2.5, math.inf, math.inf]


def test_score_reading_selectors_are_shown_per_reward_model_with_and_without_its_cost(tmp_path: Path) -> None:
    made = run_of(tmp_path / "run", problems=("a",), samples=2)
    made.add_completions([completion("a", 0, 2.0), completion("a", 1, 2.0)])
    made.add_verdicts([verdict("a", 0, "5", 0), verdict("a", 1, "4", 1)])
    made.add_scores([score("a", 0, "R", [2.0]), score("a", 1, "R", [-1.0], None, 1.0)])
    made.add_scores([score("a", 0, "S", [0.5]), score("a", 1, "S", [0.6])])
    items = load_bank(made)
    selectors = [plugins.load_selector("best_of_n"), plugins.load_selector("majority")]
    told = [
        (curve.selector, curve.axis, curve.reward_model, curve.charged)
        for curve in curves_of(items, selectors, {"seconds": [4.0], "tokens": []})
    ]
    assert told == [
        ("best_of_n by R", "k", "R", None),
        ("best_of_n by S", "k", "S", None),
        ("majority", "k", None, None),
        ("best_of_n by R", "seconds", "R", False),
        ("best_of_n by R", "seconds", "R", True),
        ("best_of_n by S", "seconds", "S", False),
        ("best_of_n by S", "seconds", "S", True),
        ("majority", "seconds", None, None),
        ("best_of_n by R", "tokens", "R", None),
        ("best_of_n by S", "tokens", "S", None),
        ("majority", "tokens", None, None),
    ]
    by_name = {(view.selector.name, view.charged): view for view in views_of(items, selectors, "seconds")}
    for name, charged, values in (
        ("best_of_n by R", True, [0.0, 0.0]),
        ("best_of_n by S", True, [1.0, 1.0]),
        ("best_of_n by S", False, [1.0, 1.0]),
    ):
        view = by_name[name, charged]
        assert values_along(view.selector, view.items, "seconds", [2.0, 4.0])[0].tolist() == values
    seen = items[0].seen_by("R")
    assert seen.graded.candidates[1].scores == (-1.0,)
    assert seen.graded.candidates[1].scores_are_logits
    assert items[0].graded.scores is None
    assert items[0].graded.candidates[0].scores == ()


def test_the_only_reward_models_scores_are_seen_by_every_selector(run: Run) -> None:
    run.add_scores([score("a", 0, "R", [0.2]), score("a", 1, "R", [0.7])])
    first, _ = load_bank(run)
    assert [one.scores for one in first.graded.candidates] == [(0.2,), (0.7,), ()]
    by_score = Selector("mine", select=lambda prompt, some: max(some, key=lambda one: one.scores, default=None))
    assert value_of(by_score, "Q", first.graded) == 1.0


def test_a_selector_by_scores_wants_scores(run: Run) -> None:
    selectors = [plugins.load_selector("best_of_n")]
    with pytest.raises(
        UserError, match=r"best_of_n chooses by a reward model's scores .* ttc score .*run --reward-model R"
    ):
        summarise(run, selectors)
    assert summarise(run, selectors, skip_unscored=True).curves == ()


def test_a_run_without_completions_is_a_sentence(tmp_path: Path) -> None:
    made = run_of(tmp_path / "run")
    made.manifest["validity"] = VALID | {"verdict": "INVALID"}
    with pytest.raises(UserError, match="has no completions yet"):
        load_bank(made)


def test_a_budget_in_which_nothing_began_is_worth_nothing_by_every_reward_model(tmp_path: Path) -> None:
    items = load_bank(run_of(tmp_path / "run", reward_models=["zoo/orm"]))
    assert [len(item.graded) for item in items] == [3, 3]
    assert not any(item.graded.correct.any() for item in items)
    assert [list(item.scores) for item in items] == [["zoo/orm"]] * 2
    assert all(np.isinf(place) for item in items for place in item.charged["zoo/orm"]["seconds"])


def test_problems_on_one_clock_share_their_work(tmp_path: Path) -> None:
    made = run_of(tmp_path / "run", samples=1, protocol="throughput")
    made.add_completions([completion("a", 0, 2.0), completion("b", 0, 4.0)])
    items = load_bank(made)
    # Both wrote from 1 s on, 10 tokens each; at 2 s b has a third of its own.
    assert [item.positions["tokens"][0] for item in items] == pytest.approx([10 + 10 / 3, 20])
    assert all(item.shared_clock for item in items)


def test_work_beside_a_row_is_that_of_a_double_loop() -> None:
    from harness.analysis.positions import spent_when_finished

    rng = np.random.default_rng(2)
    n = 60
    started = rng.uniform(0, 5, n)
    first = started + rng.uniform(0, 1, n)
    finished = np.round(first + rng.uniform(0, 4, n) * (rng.random(n) < 0.9), 2)
    first = np.minimum(first, finished)
    columns = {
        "started_s": started, "first_token_s": first, "finished_s": finished,
        "completion_tokens": rng.integers(1, 50, n).astype(float), "prefill_flops": rng.random(n),
        "decode_flops": rng.random(n) * 1e12,
    }  # fmt: skip

    def share(j: int, now: float) -> float:
        if now >= finished[j]:
            return 1.0
        return (now - first[j]) / (finished[j] - first[j]) if now > first[j] else 0.0

    flops, tokens = spent_when_finished(columns)
    for i, now in enumerate(finished):
        shares = np.array([share(j, now) for j in range(n)])
        assert tokens[i] == pytest.approx(shares @ columns["completion_tokens"], rel=1e-9)
        begun = columns["prefill_flops"][started <= now].sum()
        assert flops[i] == pytest.approx(shares @ columns["decode_flops"] + begun, rel=1e-9)


def test_items_may_be_made_by_hand() -> None:
    one = Item("p", "Q", load_made(), {"seconds": np.array([1.0])})
    assert (one.charged, one.scores) == ({}, {})


def load_made() -> Any:
    from banks import graded_of

    return graded_of(["4"])
