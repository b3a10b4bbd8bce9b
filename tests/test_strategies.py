"""Strategies on a scripted engine: every expectation is a trace worked by hand."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import pytest
from fakes import FakeClock, StepEngine, last_word, same
from hypothesis import given
from hypothesis import strategies as st
from scripted import Scorer, Script, Scripted, by_table

from harness.budgets import Budget, Deadline
from harness.errors import UserError
from harness.models.strategies.cascade import ask
from harness.models.strategies.rebase import shared_out
from harness.models.strategies.voting import is_settled
from harness.nouns import Completion, Request, Sampling, Task, stream_seed
from harness.running.searching import Searcher, load_strategy
from harness.running.strategies import Search, Strategy


class Table:
    """A bench of one problem on the scripted engine."""

    def __init__(
        self, script: Script, name: str, options: Sequence[str] = (), scores: Mapping[str, float] | None = None,
        samples: int = 4, max_tokens: int = 100,
    ) -> None:  # fmt: skip
        self.clock = FakeClock()
        self.engine, self.scorer = Scripted(self.clock, script), Scorer(self.clock, scores or {})
        task = Task("toy", [], last_word, same)
        self.strategy = load_strategy(name, options)
        self.model = Searcher(self.engine, self.strategy, samples, [self.scorer.judge()], task)
        self.requests = [Request("p", i, "Q", Sampling(max_tokens=max_tokens, seed=3)) for i in range(samples)]

    def run(self, budget: Budget | None = None) -> list[Completion]:
        self.deadline = Deadline(budget, self.clock)
        return list(self.model.generate(self.requests, self.deadline))


def told(rows: Sequence[Completion]) -> list[tuple[int, str, str]]:
    return [(row.sample_index, row.text, row.finish_reason) for row in rows]


BEAM = {
    ("", 0): "a\n", ("", 1): "b\n", ("", 2): "c\n", ("", 3): "a\n",
    ("a\n", 0): "x", ("c\n", 1): "y\n", ("a\n", 2): "z\n", ("c\n", 3): "w\n",
    ("a\nz\n", 0): "1", ("a\nz\n", 1): "22", ("a\nz\n", 2): "333",
}  # fmt: skip
BEAM_SCORES = {"a\n": 0.9, "b\n": 0.1, "c\n": 0.8, "c\ny\n": 0.5, "a\nz\n": 0.7, "c\nw\n": 0.2}


def unended(table: Mapping[tuple[str, int], str]) -> Script:
    """A script whose lines are not the replies' ends."""
    return by_table({key: text + "…" if text.endswith("\n") else text for key, text in table.items()})


def test_beam_search_keeps_the_best_and_narrows() -> None:
    table = Table(unended(BEAM), "beam_search", ["width=2"], BEAM_SCORES)
    rows = table.run()
    # 4 // 2 beams of the first step are kept, of doubles one; a reply ends in the second, so 3 // 2 are kept there.
    assert told(rows) == [
        (0, "a\nx", "stop"),
        (1, "a\nz\n1", "stop"),
        (2, "a\nz\n22", "stop"),
        (3, "a\nz\n333", "stop"),
    ]
    assert table.engine.asked == [
        ("", 0), ("", 1), ("", 2), ("", 3),
        ("a\n", 0), ("c\n", 1), ("a\n", 2), ("c\n", 3),
        ("a\nz\n", 0), ("a\nz\n", 1), ("a\nz\n", 2),
    ]  # fmt: skip
    assert table.scorer.asked == [["a\n", "b\n", "c\n"], ["c\ny\n", "a\nz\n", "c\nw\n"]]
    # 2 s of the first step, 1 s of scoring, "x" after 1 s more, the line after 2; 1 s of scoring; 1, 2 and 3 s.
    assert [row.finished_s for row in rows] == [4.0, 7.0, 8.0, 9.0]
    # Everything that was written by then, given up or not: 8 characters, 4, 3 more, then 3, 2 and 1 a second.
    assert [row.spent_tokens for row in rows] == [12, 18, 20, 21]
    assert [row.spent_flops for row in rows] == [120.0, 180.0, 200.0, 210.0]
    assert [row.completion_tokens for row in rows] == [3, 5, 6, 7]
    assert [row.logprob for row in rows] == [-3.0, -5.0, -6.0, -7.0]
    assert table.deadline.tokens == 21


def test_doubles_compete_when_they_are_wanted() -> None:
    table = Table(unended(BEAM), "beam_search", ["width=2", "deduplicate=false"], BEAM_SCORES)
    table.run()
    # The two equal beams are the best two; each text is scored once all the same.
    assert table.engine.asked[4:8] == [("a\n", 0), ("a\n", 1), ("a\n", 2), ("a\n", 3)]
    assert table.scorer.asked[0] == ["a\n", "b\n", "c\n"]


def test_rejecting_early_finishes_only_what_is_kept() -> None:
    script = by_table(
        {("", 0): "aaaa\n!", ("", 1): "bbbb\n!", ("aa", 0): "aa\n!", ("aaaa\n", 0): "1", ("aaaa\n", 1): "2"}
    )
    table = Table(script, "beam_search", ["width=2", "early_tokens=2"], {"aa": 0.9, "bb": 0.3}, samples=2)
    assert told(table.run()) == [(0, "aaaa\n1", "stop"), (1, "aaaa\n2", "stop")]
    assert table.engine.asked == [("", 0), ("", 1), ("aa", 0), ("aaaa\n", 0), ("aaaa\n", 1)]
    assert table.deadline.tokens == 2 + 2 + 3 + 1 + 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # The first reply has ended; what is being written comes as it is.
        (8, {(0, "a\nx", "stop"), (1, "a\nz\n1", "stop"), (2, "a\nz\n22", "stop"), (3, "a\nz\n33", "deadline")}),
        (5, {(0, "a\nx", "stop"), (1, "c\ny\n", "deadline"), (2, "a\nz\n", "deadline"), (3, "c\nw\n", "deadline")}),
        # No scoring that takes a second is begun with half a second left.
        (2.5, {(i, text, "deadline") for i, text in enumerate(("a\n", "b\n", "c\n", "a\n"))}),
    ],
)
def test_a_beam_search_cut_by_the_deadline_keeps_what_it_had(seconds: float, expected: set[Any]) -> None:
    table = Table(unended(BEAM), "beam_search", ["width=2"], BEAM_SCORES)
    table.model.judges[0].costs = [(100, 1.0, 0.0)]  # what earlier problems taught of scoring
    rows = table.run(Budget(seconds))
    assert set(told(rows)) == expected
    if seconds == 2.5:
        assert table.scorer.asked == []


def test_dvts_grows_trees_that_do_not_compete() -> None:
    lines = {
        ("", 0): "a\n…", ("", 1): "b\n…", ("", 2): "c\n…", ("", 3): "a\n…",
        ("a\n", 0): "x", ("a\n", 1): "y\n…", ("c\n", 2): "z", ("c\n", 3): "w",
        ("a\ny\n", 0): "1", ("a\ny\n", 1): "2\n…",
    }  # fmt: skip
    scores = {
        "a\n": 0.2, "b\n": 0.1, "c\n": 0.9,
        "a\nx": 0.3, "a\ny\n": 0.4, "c\nz": 0.5, "c\nw": 0.6, "a\ny\n1": 0.8, "a\ny\n2\n": 0.7,
    }  # fmt: skip
    table = Table(by_table(lines), "dvts", ["width=2"], scores)
    rows = table.run()
    # The first tree passes "a\nx" over and ends with "a\ny\n1"; the second ends with both of its last continuations.
    assert told(rows) == [(3, "c\nw", "stop"), (2, "c\nz", "stop"), (0, "a\ny\n1", "stop"), (1, "a\ny\n2\n", "dropped")]
    assert table.scorer.asked[0] == ["a\n", "b\n", "c\n"]
    assert table.engine.asked[4:] == [
        ("a\n", 0), ("a\n", 1), ("c\n", 2), ("c\n", 3), ("a\ny\n", 0), ("a\ny\n", 1),
    ]  # fmt: skip


def test_a_tree_cut_by_the_deadline_has_what_it_passed_over() -> None:
    lines = {("", 0): "a", ("", 1): "b\n…", ("b\n", 0): "long reply", ("b\n", 1): "long reply"}
    table = Table(by_table(lines), "dvts", ["width=2"], {"a": 0.1, "b\n": 0.9}, samples=2)
    rows = table.run(Budget(5.0))
    assert told(rows) == [(0, "a", "stop"), (1, "b\nlo", "deadline")]
    assert rows[0].finished_s == 1.0


def test_rebase_gives_the_better_node_more_children() -> None:
    lines = {("", i): f"{letter}\n…" for i, letter in enumerate("abab")}
    table = Table(by_table(lines, "1"), "rebase", ["balance=0.5"], {"a\n": 0.9, "b\n": 0.1})
    table.run()
    # exp(1.8) : exp(0.2) = 0.832 : 0.168; of 4 children 3.33 and 0.67.
    assert table.engine.asked[4:] == [("a\n", 0), ("a\n", 1), ("a\n", 2), ("b\n", 3)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 40), st.sampled_from([0.05, 0.2, 1.0]))
def test_children_are_shared_out_by_largest_remainder(scores: list[float], total: int, balance: float) -> None:
    weights = [Fraction(math.exp((score - max(scores)) / balance)) for score in scores]
    shares = [total * weight / sum(weights) for weight in weights]
    counts = shared_out(scores, total, balance)
    assert sum(counts) == total
    assert all(abs(count - share) < 1 + Fraction(1, 10**9) for count, share in zip(counts, shares, strict=True))


def test_nodes_without_scores_share_evenly() -> None:
    assert shared_out([-math.inf, -math.inf], 5, 0.2) == [3, 2]
    assert shared_out([0.5, -math.inf], 5, 0.2) == [5, 0]


def test_budget_forcing_waits_in_the_place_of_the_end() -> None:
    lines = {("", 0): "is 4", ("", 1): "longer 5", ("is 4\nWait", 0): " no 6", ("longer 5\nWait", 1): " yes 5"}
    table = Table(by_table(lines), "budget_forcing", [], samples=2)
    rows = table.run()
    assert told(rows) == [(0, "is 4\nWait no 6", "stop"), (1, "longer 5\nWait yes 5", "stop")]
    # The first goes on while the second is at its first reply.
    assert [row.finished_s for row in rows] == [9.0, 14.0]
    assert [row.completion_tokens for row in rows] == [9, 14]


def test_without_waiting_budget_forcing_is_independent_sampling() -> None:
    lines = {("", 0): "is 4", ("", 1): "longer 5"}
    forced, plain = (
        Table(by_table(lines), name, options, samples=2).run()
        for name, options in (("budget_forcing", ["waits=0"]), ("independent", []))
    )
    assert forced == plain


def test_a_thought_at_its_limit_is_closed() -> None:
    lines = {("", 0): "hm hm hm", ("hm hm>", 0): "4}…", ("", 1): "5"}
    table = Table(by_table(lines), "budget_forcing", ["waits=0", "think_tokens=5", "close=>"], samples=2)
    assert told(table.run()) == [(1, "5", "stop"), (0, "hm hm>4}", "stop")]


def test_a_forced_thought_that_the_deadline_cuts_has_the_reply_before_it() -> None:
    lines = {("", 0): "is 4", ("is 4\nWait", 0): " a very long thought", ("", 1): "never so short"}
    table = Table(by_table(lines), "budget_forcing", ["reserve=0"], samples=2)
    rows = table.run(Budget(10.0))
    assert told(rows) == [(0, "is 4", "stop"), (1, "never so s", "deadline")]
    assert (rows[0].finished_s, rows[0].spent_tokens) == (4.0, 8)


def test_probing_answers_before_the_deadline() -> None:
    lines = {("", 0): "4", ("", 1): "x" * 50, ("x" * 8 + ">", 1): "7}…"}
    table = Table(by_table(lines), "probing", ["close=>", "reserve=0.2"], samples=2)
    rows = table.run(Budget(10.0))
    assert told(rows) == [(0, "4", "stop"), (1, "x" * 8 + ">7}", "stop")]
    assert rows[1].finished_s == 10.0
    assert not table.strategy.replays
    # Without a budget nothing is cut, and nothing is kept for it.
    assert told(Table(by_table(lines), "probing", ["close=>"], samples=2).run())[1] == (1, "x" * 50, "stop")


def test_a_vote_that_is_settled_ends_the_search() -> None:
    script: Script = lambda text, stream: ["  4", " 4", "   4", "     5", "        5"][stream]  # noqa: E731
    table = Table(script, "self_consistency", ["confidence=1"], samples=5)
    rows = table.run()
    # Three of five have voted alike after 4 s.
    assert told(rows)[:3] == [(1, " 4", "stop"), (0, "  4", "stop"), (2, "   4", "stop")]
    assert told(rows)[3:] == [(3, "", "dropped"), (4, "", "dropped")]
    assert table.deadline.elapsed_s == 4.0


def test_samples_follow_one_another_where_few_are_in_flight() -> None:
    table = Table(lambda text, stream: " " * stream + str(stream), "self_consistency", ["at_once=2"], samples=4)
    rows = table.run()
    assert [(row.sample_index, row.finished_s) for row in rows] == [(0, 1.0), (1, 2.0), (2, 4.0), (3, 6.0)]
    assert table.deadline.tokens == 1 + 2 + 3 + 4


@pytest.mark.parametrize(
    ("classes", "left", "confidence", "expected"),
    [
        ([0, 0, 0, None, 1], 1, 1.0, True),
        ([0, 0, 1], 1, 1.0, False),
        ([], 5, 0.6, False),
        # Of a Beta(4, 1) 15/16 lies above one half, of a Beta(5, 1) 31/32.
        ([0, 0, 0], 9, 0.95, False),
        ([0, 0, 0, 0], 9, 0.95, True),
        ([0, 0, 1, 1], 9, 0.6, False),
    ],
)
def test_when_a_vote_is_settled(classes: list[int | None], left: int, confidence: float, expected: bool) -> None:
    assert is_settled(classes, left, confidence) == expected


@pytest.mark.parametrize(
    ("fast", "seconds", "expected"),
    [
        (["4", "4", "5"], None, [(0, "4", "stop"), (1, "4", "stop"), (2, "5", "stop"), (3, "", "dropped")]),
        (["4", "6", "5"], None, [(0, "is 7", "stop"), (1, "is 7", "stop"), (2, "", "dropped"), (3, "", "dropped")]),
        (["4", "6", "5"], 3.0, [(0, "4", "stop"), (1, "6", "stop"), (2, "5", "stop"), (3, "is", "deadline")]),
    ],
)
def test_a_cascade_asks_the_slow_model_where_the_fast_one_is_unsure(
    fast: list[str], seconds: float | None, expected: list[Any]
) -> None:
    table = Table(lambda text, stream: "is 7", "independent", samples=4)
    quick = Scripted(table.clock, lambda text, stream: fast[stream], "quick")
    strategy = Strategy("cascade", lambda search: ask(search, quick, 3, 0.6, 2), models=(quick,))
    table.model = Searcher(table.engine, strategy, 4, (), table.model.task)
    assert told(table.run(None if seconds is None else Budget(seconds))) == expected
    assert len(table.engine.asked) == (0 if expected[0][1] == "4" and seconds is None else 2)
    # Three fast characters, and where they disagree two replies of four, or of two that the deadline cut.
    assert table.deadline.tokens == (3 if not table.engine.asked else 3 + 2 * (4 if seconds is None else 2))


def test_a_stream_is_never_drawn_from_twice() -> None:
    table = Table(lambda text, stream: "x\n…", "independent")
    search = Search("p", "Q", 2, Sampling(seed=3), Deadline(None, table.clock), table.engine)
    seeds = [draft.pieces[-1].seed for _ in range(2) for draft in search.extend([search.begin()] * 2, stop=["\n"])]
    assert seeds == [
        stream_seed(3, "p", 0),
        stream_seed(3, "p", 1),
        stream_seed(3, "p", 0, 1),
        stream_seed(3, "p", 1, 1),
    ]
    assert len(set(seeds)) == 4


def test_a_draft_that_has_ended_does_not_go_on() -> None:
    table = Table(lambda text, stream: "x", "independent")
    search = Search("p", "Q", 2, Sampling(), Deadline(None, table.clock), table.engine)
    (draft,) = search.extend([search.begin()])
    with pytest.raises(ValueError, match=r"has ended \(stop\)"):
        search.extend([draft])
    assert [one.text for one in search.extend([draft.plus(" and")])] == ["x andx"]


def test_an_engine_that_only_answers_prompts_reads_the_reply_again() -> None:
    clock = FakeClock()
    engine = StepEngine(clock)
    search = Search("toy/0", "Q", 3, Sampling(max_tokens=100), Deadline(None, clock), engine)
    chains = search.extend([search.begin()] * 3)
    first = next(chains)
    chains.add(first.plus(" Wait "))
    texts = [draft.text for draft in chains]
    assert texts == ["step " * 5 + "5", "step " * 9 + "4", "step step step 4 Wait step step step 4"]
    assert engine.asked == [[("toy/0", 0), ("toy/0", 1), ("toy/0", 2)], [("toy/0", 0)]]
    with pytest.raises(UserError, match="goes step by step, which the engine of 'steps' cannot; use --engine native"):
        search.extend([search.begin()], stop=["\n"])


def test_an_interrupted_search_is_repeated_for_what_is_missing() -> None:
    table = Table(unended(BEAM), "beam_search", ["width=2"], BEAM_SCORES)
    whole = table.run()
    table.requests = [table.requests[2]]
    assert told(table.run()) == [row for row in told(whole) if row[0] == 2]


@pytest.mark.parametrize(
    ("name", "pair", "says"),
    [
        ("beam_search", "width=0", "width must be at least 1, got 0"),
        ("beam_search", "separator=", "the separator of steps must not be empty"),
        ("beam_search", "early_tokens=-1", "early_tokens must not be negative, got -1"),
        ("rebase", "balance=0", "balance must be positive, got 0"),
        ("probing", "reserve=1", "reserve is the share of the budget that is kept for answers, 0 to below 1, got 1"),
        ("probing", "answer_tokens=33", "answer_tokens must be 1 to 32, got 33"),
        ("probing", "close=", "close and until must not be empty"),
        ("budget_forcing", "waits=-1", "waits and think_tokens must not be negative, got -1"),
        ("self_consistency", "confidence=0.5", "confidence must lie above 0.5 and at most 1, got 0.5"),
        ("self_consistency", "at_once=-1", "at_once must not be negative, got -1"),
        ("cascade", "agreement=0.5", "strategy cascade needs the option fast"),
        ("dvts", "depth=3", "strategy dvts takes no option 'depth'; it takes aggregate, separator, width"),
        ("astar", "", "no strategy named 'astar'; there is beam_search"),
    ],
)
def test_wrong_options_are_answered_with_what_exists(name: str, pair: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        load_strategy(name, [pair] if pair else [])
    assert says in str(caught.value)
