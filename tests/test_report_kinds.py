"""The other figures of a report: fronts, comparisons, multiples, difficulty, scoring time, speed; and the style."""

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import report_runs
import report_samples as samples
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from report_tables import timing_table
from typer.testing import CliRunner

from harness.analysis.bank import load_bank
from harness.analysis.comparable import reasons_apart, setting_of, together
from harness.analysis.summarise import summarise_all
from harness.analysis.summary import Curve, Point, RunSummary
from harness.cli import app
from harness.errors import UserError
from harness.plugins import load_selectors
from harness.reporting import Material, material_of, write_reports
from harness.reports import comparison, difficulty, multiples, pareto, scoring_time, speed, tables
from harness.reports.figures import FIGURES, figures
from harness.reports.grouping import groups
from harness.reports.lines import Line, look_of
from harness.reports.sheet import draw, paper_style
from harness.reports.significance import clear_winner
from harness.stats.crossing import Crossover
from harness.stats.iso_accuracy import SpeedUp
from harness.storage.runs import Run
from harness.timing.timing_tables import write_timings

BASELINES = Path(__file__).with_name("baselines")
TOLERANCE = 12.0
"""Root mean square of the grey levels: another FreeType moves letters by a pixel, another layout moves lines."""

SELECTORS = ["coverage", "majority", "first"]


def material(runs: list[Run]) -> tuple[list[RunSummary], Material]:
    selectors = load_selectors(SELECTORS)
    summaries = summarise_all(runs, selectors)
    return summaries, material_of(summaries, runs, selectors, formats=["png"])


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("trio")
    return [
        report_runs.write_run(folder / "a", problems=20, samples=16, skill=0.8, step_s=0.03),
        report_runs.write_run(folder / "b", "zoo/student", problems=20, samples=16, skill=0.3, step_s=0.012),
        report_runs.write_run(folder / "c", "zoo/hybrid", problems=20, samples=16, skill=0.5, step_s=0.02),
    ]


def sheets(trio: list[Run]) -> dict[str, Figure | None]:
    summaries, given = material(trio)
    (group,) = groups(summaries, given)
    compared = given.comparisons[group.places]
    return {
        "front-one": pareto.draw_fronts(groups([samples.run()])[0], "seconds"),
        "front-paper": pareto.draw_fronts(groups(samples.paper())[0], "seconds"),
        "front-twelve": pareto.draw_fronts(groups(samples.many())[0], "flops"),
        "front-hostile": pareto.draw_fronts(
            groups([samples.run(samples.HOSTILE), samples.run("b", shift=0.1)])[0], "seconds"
        ),
        "front-runs": pareto.draw_fronts(group, "seconds", trio),
        "multiples": multiples.draw_cells(multiples.cells_of(samples.distillates(), "latency"), "majority", "seconds"),
        "scoring": scoring_time.draw_pairs([samples.scored(), samples.scored("zoo/student", -0.05)]),
        "difficulty": difficulty.draw_bins(group, given),
        "comparison": comparison.draw_pairs(group, compared)[0],
        "speed": speed.draw_speeds([timing_table("meta/Llama-3.2-1B"), timing_table("lab/Llamba-1B", 0.3)]),
        "speed-one": speed.draw_speeds([timing_table("meta/Llama-3.2-1B")]),
    }


def test_no_two_texts_touch_in_any_figure(trio: list[Run]) -> None:
    with paper_style():
        for name, figure in sheets(trio).items():
            assert figure is not None, name
            figure.draw_without_rendering()
            shown = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()]
            boxes = [(text.get_text(), text.get_window_extent()) for text in shown if text.get_text().strip()]
            assert len(boxes) > 5, name
            for words, box in boxes:
                inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
                assert inside, f"{name}: {words!r} leaves the figure"
            for (words, box), (others, other) in itertools.combinations(boxes, 2):
                across = min(box.x1, other.x1) - max(box.x0, other.x0)
                upright = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert across <= 0.5 or upright <= 0.5, f"{name}: {words!r} touches {others!r}"


@pytest.mark.parametrize("name", ["accuracy", "front", "multiples"])
def test_figures_look_as_they_did(name: str, tmp_path: Path) -> None:
    with paper_style():
        made = {
            "accuracy": lambda: draw([samples.run()], FIGURES["accuracy"]),
            "front": lambda: pareto.draw_fronts(groups(samples.paper())[0], "seconds"),
            "multiples": lambda: multiples.draw_cells(
                multiples.cells_of(samples.distillates(), "latency"), "majority", "seconds"
            ),
        }[name]()
        assert made is not None
        made.savefig(tmp_path / f"{name}.png", dpi=72, metadata={"Software": None})
    shutil.copy(BASELINES / f"{name}.png", tmp_path / f"{name}-before.png")
    different = compare_images(str(tmp_path / f"{name}-before.png"), str(tmp_path / f"{name}.png"), TOLERANCE)
    assert different is None, different


def points_of(pairs: list[tuple[float, float]]) -> tuple[Point, ...]:
    return tuple(Point(x, value, value, value, 9) for x, value in pairs)


def test_a_front_holds_what_nothing_beats() -> None:
    rng = np.random.default_rng(3)
    with paper_style():
        lines = [
            Line(
                arm,
                "majority",
                "seconds",
                False,
                points_of(sorted(zip(*rng.integers(1, 9, (2, 12)) / 8, strict=True))),
                look_of(0, 0),
            )
            for arm in ("a", "b")
        ]
    every = {(point.x, point.value) for line in lines for point in line.points}
    unbeaten = {
        (x, value) for x, value in every if not any((u <= x and w > value) or (u < x and w >= value) for u, w in every)
    }
    assert {(point.x, point.value) for point in pareto.front_of(lines)} == unbeaten


def test_a_front_leaves_invalid_runs_out_and_names_k(trio: list[Run]) -> None:
    teacher = samples.run("zoo/teacher", ("majority",))
    cheat = samples.run("zoo/cheat", ("majority",), shift=0.2, validity="INVALID", reasons=("late",))
    with paper_style():
        figure = pareto.draw_fronts(
            groups([teacher, samples.run("zoo/other", ("majority",), shift=-0.1), cheat])[0], "seconds"
        )
        assert figure is not None
        named = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert not any(re.match(r"\d+  cheat", words) for words in named)
        assert any(re.match(r"1  teacher, majority", words) for words in named)
        summaries, given = material(trio)
        (group,) = groups(summaries, given)
        end = pareto.FrontPoint(8.0, 0.5, "student", "majority")
        assert pareto.finished_by(group, "seconds", trio, end) == 16
        half = pareto.FrontPoint(0.5, 0.5, "teacher", "majority")
        finished = [sum(place <= 0.5 for place in item.positions["seconds"]) for item in load_bank(trio[0])]
        assert pareto.finished_by(group, "seconds", trio, half) == pytest.approx(np.mean(finished))


def test_sizes_make_rows_and_families_colours() -> None:
    names = multiples.size_names(samples.distillates())
    assert set(names) == {"1.2B parameters", "3.2B parameters"}
    runs = [samples.sized("x", size) for size in (1.24e9, 1.5e9, 3.2e9, 8e9)] + [samples.run()]
    assert multiples.size_names(runs) == [f"{size} parameters" for size in ("1.2B", "1.2B", "3.2B", "8B")] + [""]
    assert multiples.families(["Llama-3.2-1B-Instruct", "Llamba-3B", "Qwen2.5-1.5b", "teacher", "step-1000"]) == [
        "Llama-3.2-Instruct", "Llamba", "Qwen2.5", "teacher", "step-1000",
    ]  # fmt: skip
    with paper_style():
        figure = multiples.draw_cells(multiples.cells_of(samples.distillates(), "latency"), "coverage", "seconds")
        assert figure is not None
        assert [axes.get_title(loc="left") for axes in figure.axes] == [
            "math500, 1.2B parameters", "gsm8k, 1.2B parameters", "math500, 3.2B parameters", "gsm8k, 3.2B parameters",
        ]  # fmt: skip
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Llama", "Llamba"]
        assert multiples.draw_cells(multiples.cells_of([samples.run()], "latency"), "coverage", "seconds") is None


def test_scoring_time_shows_both_curves_and_the_other_figures_the_charged_one() -> None:
    with paper_style():
        figure = scoring_time.draw_pairs([samples.scored()])
        assert figure is not None
        first = [line for line in figure.axes[0].get_lines() if line.get_transform() == figure.axes[0].transData]
        charged, free = (np.asarray(line.get_xdata()) for line in first)
        assert charged == pytest.approx(1.35 * free)
        assert scoring_time.draw_pairs([samples.run()]) is None
        plain = draw([samples.scored()], ["seconds"])
        assert plain is not None
        starts = {float(np.asarray(line.get_xdata())[0]) for axes in plain.axes for line in axes.get_lines()}
        assert starts == {samples.SECONDS[0], 1.35 * samples.SECONDS[0]}
        assert sum(len(axes.get_lines()) for axes in plain.axes) == 4
    rows = [row for row in tables.table_rows([samples.scored()]) if row.selector.startswith("best_of_n")]
    assert [row.selector for row in rows] == ["best_of_n by zoo/orm", "best_of_n by zoo/orm, scoring not charged"]
    assert rows[0].full is not None
    assert rows[1].full is not None
    assert rows[0].full.x == pytest.approx(1.35 * rows[1].full.x)


def test_bins_of_difficulty_hold_every_problem_once(trio: list[Run]) -> None:
    summaries, given = material(trio)
    (group,) = groups(summaries, given)
    with paper_style():
        figure = difficulty.draw_bins(group, given)
        assert figure is not None
        notes = [text.get_text() for axes in figure.axes[:5] for text in axes.texts]
    assert notes[0].startswith("easiest fifth")
    assert sum(int(note.rsplit(" ", 1)[1]) for note in notes) == 20
    ends = [float(np.asarray(axes.get_lines()[0].get_ydata())[-1]) for axes in figure.axes[:5]]
    assert ends == sorted(ends, reverse=True)


def test_a_comparison_is_marked_where_its_numbers_say(trio: list[Run]) -> None:
    summaries, given = material(trio)
    (group,) = groups(summaries, given)
    compared = given.comparisons[group.places]
    crossing = Crossover(0.6, "a", 0.4, None, 0.9)
    sooner = (SpeedUp(0.3, 0.5, 0.25, 2.0, 1.5, None, 1.0), SpeedUp(0.2, 0.4, 0.2, 2.0, 1.1, 2.5, 1.0))
    first = replace(compared.pairs[0].selectors[0], crossover=crossing, speed_ups=sooner)
    changed = replace(compared, pairs=(replace(compared.pairs[0], selectors=(first,)),))
    with paper_style():
        (figure,) = comparison.draw_pairs(group, changed)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts if text.get_text()] == [
        "cross 600 ms [400 ms, –]", "2× [1.1, 2.5] at 20 %",
    ]  # fmt: skip
    upright = [line for line in axes.get_lines() if line.get_transform() != axes.transData]
    assert [float(np.asarray(line.get_xdata())[0]) for line in upright] == [0.6]
    assert len(data := [line for line in axes.get_lines() if line not in upright]) == 2
    assert data[0].get_color() != data[1].get_color()


def test_speed_is_drawn_at_the_longest_context_that_all_share(tmp_path: Path) -> None:
    fast = timing_table("lab/Llamba-1B", 0.5)
    with paper_style():
        figure = speed.draw_speeds([timing_table("meta/Llama-3.2-1B"), fast])
        assert figure is not None
        ratios = np.asarray(figure.axes[1].get_lines()[0].get_ydata())
    base = {cell.batch: cell.seconds for cell in timing_table("meta/Llama-3.2-1B").of("decode") if cell.context == 1024}
    assert ratios == pytest.approx(
        [base[cell.batch] / cell.seconds for cell in fast.of("decode") if cell.context == 1024]
    )
    assert speed.speed([], tmp_path) == []
    lonely = replace(fast, cells=tuple(cell for cell in fast.cells if cell.context == 512))
    far = replace(fast, cells=tuple(cell for cell in fast.cells if cell.context == 1024))
    assert speed.draw_speeds([lonely, far]) is None


def test_runs_that_asked_otherwise_are_drawn_apart_with_the_reason(tmp_path: Path) -> None:
    cooler = report_runs.SAMPLING | {"temperature": 0.2}
    other_seed = report_runs.SAMPLING | {"seed": 7}
    runs = [
        report_runs.write_run(tmp_path / "a"),
        report_runs.write_run(tmp_path / "b", "zoo/student", sampling=cooler),
        report_runs.write_run(tmp_path / "c", "zoo/hybrid", sampling=other_seed),
        report_runs.write_run(tmp_path / "d", "zoo/other", problems=5),
        report_runs.write_run(tmp_path / "e", "zoo/shots", task_options=["shots=4"]),
    ]
    summaries, given = material(runs)
    assert together(summaries, given.settings) == [[0, 2], [1], [3], [4]]
    (reason,) = reasons_apart(summaries, given.settings)
    for words in ("4 groups", "temperature (0.8 against 0.2)", "task options (none against shots=4)", "5 problems"):
        assert words in reason
    assert "seed" not in reason
    written = {path.name for path in figures(summaries, tmp_path, given)}
    assert {f"accuracy-k{end}.png" for end in ("", "-2", "-3", "-4")} <= written


def test_recorded_prompts_set_runs_apart(tmp_path: Path) -> None:
    run = report_runs.write_run(tmp_path / "a", engine="recorded")
    assert "prompts" in setting_of(run)
    assert "prompts" not in setting_of(report_runs.write_run(tmp_path / "b"))


def test_only_a_sure_best_is_bold(trio: list[Run], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sure = (rng.random((60, 1)) < 0.9).astype(float)
    assert clear_winner([sure * 0, sure]) == 1
    assert clear_winner([sure, sure]) is None
    assert clear_winner([sure, np.roll(sure, 1, axis=0)]) is None
    assert clear_winner([sure, sure * 0, sure * 0.5]) == 0
    summaries, given = material(trio)
    tables.tables(summaries, tmp_path, given)
    bold = [line for line in (tmp_path / "table.tex").read_text().splitlines() if "mathbf" in line]
    assert bold
    assert all(line.startswith("zoo/teacher & ") for line in bold)
    assert "Bold: better than every other run" in (tmp_path / "caption.tex").read_text()
    alone = [replace(summaries[0], validity="INVALID"), *summaries[1:]]
    tables.tables(alone, tmp_path, given)
    assert "mathbf" not in (tmp_path / "table.tex").read_text()


def test_a_style_of_the_users_own(tmp_path: Path) -> None:
    style = tmp_path / "mine.mplstyle"
    style.write_text('axes.prop_cycle: cycler("color", ["ff0000", "00ff00"])\nlines.linewidth: 3\nfont.size: 30\n')
    with paper_style(style):
        figure = draw([samples.run()], ["seconds"])
        assert figure is not None
        line = figure.axes[0].get_lines()[0]
        assert (line.get_color(), line.get_linewidth()) == ("#ff0000", 3)
        assert matplotlib.rcParams["font.size"] == 8
        assert matplotlib.rcParams["text.usetex"] is False
    with pytest.raises(UserError, match=r"no style file '.*none.mplstyle'"):
        material_of([], [], [], tmp_path / "none.mplstyle")
    with pytest.raises(UserError, match="no figure format named 'jpg'; there is png, svg, pdf, pgf"):
        material_of([], [], [], formats=["jpg"])


def test_every_report_is_written(trio: list[Run], tmp_path: Path) -> None:
    summaries, given = material(trio[:2])
    names = {path.name for path in write_reports(summaries, tmp_path, given)}
    assert {
        "accuracy.png", "pareto-seconds.png", "pareto-flops.png", "difficulty.png",
        "comparison.png", "table.tex", "table.md", "caption.txt", "points.csv", "index.html",
    } <= names  # fmt: skip
    assert "speed.png" not in names


def test_the_command_takes_formats_a_style_and_timings(trio: list[Run], tmp_path: Path) -> None:
    style = tmp_path / "mine.mplstyle"
    style.write_text("lines.linewidth: 2\n")
    write_timings(tmp_path / "speed", timing_table("meta/Llama-3.2-1B"))
    options = ["--format", "svg", "--selector", "coverage", "--style", str(style), "--timing", str(tmp_path / "speed")]
    done = CliRunner().invoke(app, ["report", str(trio[0].path), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 0, done.output
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".svg", ".md", ".tex", ".txt", ".csv", ".html"}
    assert (tmp_path / "out" / "speed.svg").stat().st_size > 4000
    wrong = CliRunner().invoke(app, ["report", str(trio[0].path), "--out", str(tmp_path / "out"), "--format", "gif"])
    assert isinstance(wrong.exception, UserError)


def test_points_without_a_number_stay_off_the_front() -> None:
    odd = Curve("majority", "seconds", (Point(1.0, float("nan"), 0, 1, 3), Point(2.0, 0.5, 0.4, 0.6, 3)))
    runs = [samples.run("a", curves=(odd,)), samples.run("b", ("majority",))]
    with paper_style():
        assert pareto.draw_fronts(groups(runs)[0], "seconds") is not None
