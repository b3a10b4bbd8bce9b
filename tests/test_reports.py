"""The reports room: files, what the figures show, what a hostile or odd name can do to them."""

import csv
import importlib.util
import itertools
import math
import os
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from scipy.optimize import minimize

from harness.analysis.summary import Curve, Point, RunSummary
from harness.reports import files, labels, lettering
from harness.reports.figures import FIGURES, figures
from harness.reports.files import rendered
from harness.reports.grouping import STEMS, groups, slug
from harness.reports.page import page
from harness.reports.points import points
from harness.reports.sheet import draw, paper_style
from harness.reports.tables import latex, markdown_text, table_rows, tables
from harness.reports.tex import latex_text

SPEC = importlib.util.spec_from_file_location("report_samples", Path(__file__).with_name("report_samples.py"))
assert SPEC is not None
assert SPEC.loader is not None
samples = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(samples)

CASES: dict[str, list[RunSummary]] = samples.cases()


@pytest.fixture
def style() -> Iterator[None]:
    with paper_style():
        yield


def drawn(runs: list[RunSummary], name: str = "accuracy") -> Figure:
    figure = draw(runs, FIGURES[name])
    assert figure is not None
    figure.draw_without_rendering()
    return figure


def texts(figure: Figure) -> list[Text]:
    found = [artist for artist in figure.findobj(Text) if isinstance(artist, Text)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def data_lines(axes: Axes) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_transform() == axes.transData]


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", ["accuracy", "accuracy-seconds"])
@pytest.mark.parametrize("case", CASES)
def test_no_two_texts_touch_and_none_leaves_the_figure(case: str, name: str) -> None:
    figure = drawn(CASES[case], name)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert len(boxes) > 5
    for words, box in boxes:
        assert box.x0 >= 0, words
        assert box.y0 >= 0, words
        assert box.x1 <= figure.bbox.x1, words
        assert box.y1 <= figure.bbox.y1, words
    for (words, box), (others, other) in itertools.combinations(boxes, 2):
        across = min(box.x1, other.x1) - max(box.x0, other.x0)
        upright = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert across <= 0.5 or upright <= 0.5, f"{words!r} touches {others!r}"


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("case", CASES)
def test_names_stay_outside_the_data(case: str) -> None:
    figure = drawn(CASES[case])
    frames = [axes.get_window_extent() for axes in figure.axes]
    named = [text for axes in figure.axes for text in axes.texts]
    named += [text for legend in figure.legends for text in legend.get_texts()]
    assert named
    for text in named:
        box = text.get_window_extent()
        for frame in frames:
            apart = box.x0 >= frame.x1 or box.x1 <= frame.x0 or box.y0 >= frame.y1 or box.y1 <= frame.y0
            assert apart, text.get_text()


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("case", ["one-run", "pair", "paper", "twelve", "modelled", "single-points", "zero-width"])
def test_every_point_of_every_curve_is_drawn(case: str) -> None:
    for axis in ("seconds", "k"):
        figure = drawn(CASES[case], f"accuracy-{axis}")
        curves = [curve for run in CASES[case] for curve in run.curves if curve.axis == axis]
        wanted = sorted([(point.x, point.value) for point in curve.points] for curve in curves)
        lines = [line for axes in figure.axes for line in data_lines(axes)]
        got = sorted(list(zip(*(np.asarray(data).tolist() for data in line.get_data()), strict=True)) for line in lines)
        assert got == wanted


@pytest.mark.usefixtures("style")
def test_bands_are_the_intervals_and_stay_inside_0_and_1() -> None:
    spread_out = tuple(Point(float(x), 0.5, -0.2, 1.3, 5) for x in (1, 2, 4))
    plain = tuple(Point(float(x), 0.5, 0.4 - x / 50, 0.6, 5) for x in (1, 2, 4))
    run = samples.run(curves=(Curve("a", "k", spread_out), Curve("b", "k", plain)))
    axes = drawn([run]).axes[0]
    bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
    heights = [{round(float(y), 9) for y in np.asarray(band.get_paths()[0].vertices)[:, 1]} for band in bands]
    assert heights == [{0.0, 1.0}, {0.38, 0.36, 0.32, 0.6}]
    assert axes.get_ylim() == (0.0, 1.0)


@pytest.mark.usefixtures("style")
def test_axes_say_what_they_measure() -> None:
    seconds, k = drawn([samples.run()]).axes
    assert (seconds.get_xscale(), k.get_xscale()) == ("log", "log")
    assert k.xaxis.get_transform().base == 2  # type: ignore[attr-defined]
    assert [tick.get_text() for tick in k.get_xticklabels()] == ["1", "2", "4", "8", "16", "32", "64"]
    assert seconds.get_xlabel() == "seconds per problem"
    assert k.get_xlabel() == "samples k"
    assert seconds.get_ylabel() == "accuracy (%)"
    assert [tick.get_text() for tick in seconds.get_yticklabels()] == ["20", "40", "60", "80", "100"]
    whole = drawn([samples.run(protocol="throughput")], "accuracy-flops").axes[0]
    assert whole.get_xlabel() == "TFLOPs per run"
    tokens = drawn([samples.run()], "accuracy-tokens").axes[0]
    assert tokens.get_xlabel() == "tokens per problem"


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize(("last", "scale"), [(9.9, "linear"), (10.1, "log")])
def test_seconds_are_logarithmic_past_a_decade(last: float, scale: str) -> None:
    ends = tuple(Point(x, 0.5, 0.4, 0.6, 9) for x in (1.0, last))
    assert drawn([samples.run(curves=(Curve("a", "seconds", ends),))]).axes[0].get_xscale() == scale


@pytest.mark.usefixtures("style")
def test_a_run_that_is_not_valid_is_stamped_with_its_reason() -> None:
    words = " ".join(text.get_text() for text in texts(drawn(CASES["invalid"]))).replace("\n", " ")
    assert "INVALID: 3 of 40 problems ran past their deadline by more than one decode step; the arms differ" in words
    both = [text.get_text().replace("\n", " ") for text in texts(drawn(CASES["one-invalid"]))]
    assert any(text.startswith("INVALID: student: 3 of 40 problems") for text in both)
    assert "student (INVALID)" in both
    assert "teacher" in both


@pytest.mark.usefixtures("style")
def test_a_valid_run_is_not_stamped() -> None:
    assert not any("INVALID" in text.get_text() for text in texts(drawn(CASES["pair"])))


@pytest.mark.usefixtures("style")
def test_modelled_curves_are_dashed_hollow_and_named() -> None:
    figure = drawn(CASES["modelled"])
    lines = data_lines(figure.axes[0])
    hollow = [line.get_markerfacecolor() == "white" for line in lines]
    assert hollow == [False, False, True, True]
    patterns = {str(line.get_linestyle()) + str(line._unscaled_dash_pattern) for line in lines}  # type: ignore[attr-defined]
    assert len(patterns) == 3
    assert any("modelled" in text.get_text() for text in texts(figure))


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("case", ["pair", "paper", "twelve", "seven-selectors", "twelve-one-selector"])
def test_no_two_lines_of_a_panel_look_alike(case: str) -> None:
    for axes in drawn(CASES[case]).axes:
        looks = [(line.get_color(), line.get_marker()) for line in data_lines(axes)]
        assert len(set(looks)) == len(looks)


@pytest.mark.usefixtures("style")
def test_several_models_take_the_colour_and_selectors_the_marker() -> None:
    lines = data_lines(drawn(CASES["pair"]).axes[0])
    looks = np.array([(line.get_color(), line.get_marker()) for line in lines]).reshape(2, 3, 2)
    assert len(set(looks[0, :, 0])) == len(set(looks[1, :, 0])) == 1
    assert looks[0, 0, 0] != looks[1, 0, 0]
    assert looks[0, :, 1].tolist() == looks[1, :, 1].tolist()
    assert len(set(looks[0, :, 1])) == 3


@pytest.mark.usefixtures("style")
def test_crowded_panels_are_split_by_selector() -> None:
    figure = drawn(CASES["paper"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == 2 * list(samples.RISES)
    assert all(len(data_lines(axes)) == 3 for axes in figure.axes)


@pytest.mark.usefixtures("style")
def test_a_single_point_is_a_marker_with_its_interval() -> None:
    axes = drawn(CASES["single-points"], "accuracy-seconds").axes[0]
    assert [line.get_marker() for line in data_lines(axes)] == ["o", "s"]
    bars = [np.asarray(path.vertices)[:, 1] for band in axes.collections for path in band.get_paths()]
    assert np.array(bars) == pytest.approx(np.array([[0.45, 0.74], [0.35, 0.64]]))


@pytest.mark.usefixtures("style")
def test_nothing_to_draw_gives_no_figure(tmp_path: Path) -> None:
    empty = samples.run(curves=(Curve("majority", "k", ()), Curve("coverage", "k", (Point(1, math.nan, 0, 1, 0),))))
    assert draw([empty], ["k"]) is None
    assert draw([], ["k"]) is None
    assert figures([empty], tmp_path) == []


def test_files_of_one_run(tmp_path: Path) -> None:
    written = figures([samples.run()], tmp_path)
    names = {f"{name}.{form}" for name in FIGURES for form in ("png", "svg", "pdf")}
    names |= {f"accuracy-seconds-wide.{form}" for form in ("png", "svg", "pdf")}
    assert {path.name for path in written} == names == set(os.listdir(tmp_path))
    for path in written:
        assert path.stat().st_size > 4000
    for name, wide in (("accuracy", 6.75), ("accuracy-seconds", 3.25)):
        with paper_style():
            size = draw([samples.run()], FIGURES[name]).get_size_inches()  # type: ignore[union-attr]
        head = (tmp_path / f"{name}.png").read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert struct.unpack(">II", head[16:24]) == (round(200 * size[0]), round(200 * size[1]))
        assert size[0] == wide
        root = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
        assert [float(str(root.get(side)).removesuffix("pt")) for side in ("width", "height")] == pytest.approx(
            72 * size
        )


def test_the_same_curves_give_the_same_bytes_whatever_the_user_has_set() -> None:
    before = dict(matplotlib.rcParams)
    with paper_style():
        first = [rendered(drawn(CASES["pair"]), form) for form in ("png", "svg", "pdf")]
    with matplotlib.rc_context({"text.usetex": True, "font.family": "serif", "lines.linewidth": 9, "savefig.dpi": 50}):
        with paper_style():
            again = [rendered(drawn(CASES["pair"]), form) for form in ("png", "svg", "pdf")]
        assert matplotlib.rcParams["text.usetex"] is True
    assert first == again
    assert dict(matplotlib.rcParams) == before


def test_drawing_leaves_pyplot_alone() -> None:
    code = "import sys, harness.reports.figures, harness.reports.page; sys.exit('matplotlib.pyplot' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("case", ["pair", "non-ascii", "hostile"])
def test_pdf_embeds_truetype_outlines(case: str) -> None:
    with matplotlib.rc_context({"pdf.compression": 0}):
        pdf = rendered(drawn(CASES[case]), "pdf")
    kinds = set(re.findall(rb"/Subtype /(\w*(?:Type\w*)|TrueType)", pdf))
    assert b"Type3" not in kinds
    assert b"CIDFontType2" in kinds or b"TrueType" in kinds
    assert b"/FontFile2" in pdf
    assert re.search(rb"/CreationDate", pdf) is None


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("case", ["non-ascii", "hostile", "extremes", "long", "invalid", "same-model-twice"])
@pytest.mark.parametrize("form", ["png", "svg"])
def test_odd_cases_are_written_without_a_warning(case: str, form: str) -> None:
    assert len(rendered(drawn(CASES[case], "accuracy-seconds"), form)) > 4000


def test_signs_without_a_glyph_are_spelled_out() -> None:
    assert lettering.printable("naïve-Ωmega модель") == "naïve-Ωmega модель"
    assert lettering.printable("模型\n\x00\u202e\U0001faf6") == "\\u6a21\\u578b\\x0a\\x00\\u202e\\U0001faf6"


def test_names_are_cut_to_fit_and_stay_apart() -> None:
    names = ["a" * 40 + "1" + "b" * 40, "a" * 40 + "2" + "b" * 40, "short"]
    short = lettering.shorten_all(names, 1.0)
    assert len(set(short)) == 3
    assert short[2] == "short"
    assert all(lettering.width_in(name) <= 1.0 for name in short)
    assert lettering.shorten("long " * 40, 1.0).count("…") == 1


def test_wrapped_text_fits_and_loses_nothing_that_fits() -> None:
    text = "one two three four five six seven eight nine ten " * 2
    lines = lettering.wrap(text.strip(), 2.0, lines=9)
    assert " ".join(lines) == text.strip()
    assert all(lettering.width_in(line) <= 2.0 for line in lines)
    assert len(lettering.wrap("x" * 500, 1.0, lines=3)) == 3


def test_labels_are_spread_as_little_as_possible() -> None:
    generator = np.random.default_rng(0)
    for count in (1, 2, 3, 5):
        wanted = np.sort(generator.uniform(-0.1, 2.1, count))
        order = {"type": "ineq", "fun": lambda heights: np.diff(heights) - 0.2}
        start = np.linspace(0, 2, count)
        best = minimize(
            lambda heights, wanted=wanted: ((heights - wanted) ** 2).sum(),
            start,
            bounds=[(0, 2)] * count,
            constraints=[order] if count > 1 else [],
        )
        mixed = generator.permutation(count)
        got = labels.spread(wanted[mixed].tolist(), 0.2, 2.0)
        assert got is not None
        assert np.array(got)[np.argsort(mixed)] == pytest.approx(best.x, abs=1e-3)
    assert labels.spread([0.5] * 12, 0.2, 2.0) is None


def test_files_are_named_after_task_and_protocol_where_there_are_several() -> None:
    assert [group.suffix for group in groups(samples.tasks())] == [
        "-math500-latency",
        "-gsm-8k-latency",
        "-gsm-8k-latency-2",
        "-math500-throughput",
    ]
    pair = groups([samples.run(), samples.run(task="AIME 24")])
    assert [(group.suffix, group.places) for group in pair] == [("-math500", (0,)), ("-aime-24", (1,))]
    assert [group.suffix for group in groups(CASES["paper"])] == [""]
    assert slug("../../etc") == "etc"
    assert slug("任务") == "task"
    runs = [samples.run(task=task) for task in ("k", "seconds-k", "seconds", "k")]
    names = [name + group.suffix for group in groups(runs) for name in STEMS]
    assert len(set(names)) == len(names) == 3 * len(STEMS)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.replace_file(tmp_path / "a.txt", "old")

    def refuse(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        files.replace_file(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def spelled(text: str) -> str:
    """What cannot be seen as an escape, as Python writes it."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def test_csv_holds_every_point_exactly(tmp_path: Path) -> None:
    runs = [
        *CASES["paper"],
        *CASES["modelled"],
        *CASES["hostile"],
        *CASES["extremes"],
        replace(samples.run(), budget=None),
    ]
    (path,) = points(runs, tmp_path)
    with path.open(newline="", encoding="utf-8") as file:
        got = list(csv.DictReader(file))
    wanted: list[dict[str, Any]] = []
    for run in runs:
        for curve in run.curves:
            for point in curve.points:
                row = {name: getattr(run, name) for name in ("run", "model", "task", "protocol", "validity")}
                row |= {name: getattr(curve, name) for name in ("selector", "axis", "kind")}
                row |= {"reward_model": curve.reward_model or "", "charged": str(curve.charged or "")}
                row |= {name: getattr(point, name) for name in ("x", "value", "low", "high", "n")}
                row |= {"budget": run.budget or ""}
                wanted.append({name: spelled(one) if isinstance(one, str) else one for name, one in row.items()})
    numbers = {"x": float, "value": float, "low": float, "high": float, "n": int}
    assert [{name: numbers.get(name, str)(text) for name, text in row.items()} for row in got] == wanted
    order = "run,model,task,protocol,budget,selector,axis,kind,reward_model,charged,x,value,low,high,n,validity"
    assert path.read_text().splitlines()[0] == order


def test_table_numbers() -> None:
    k = Curve("majority", "k", (Point(4, 0.75, 0.6, 0.9, 8), Point(1, 0.5, 0.375, 0.7, 8)))
    seconds = Curve("majority", "seconds", (Point(0.5, 0.25, 0.1, 0.4, 8), Point(2, 0.625, 0.5, 0.8, 8)))
    guess = replace(seconds, kind="modelled", points=(Point(3, 1.0, 0.9, 1.0, 8),))
    run = samples.run("org/m_1", curves=(k, seconds, guess), problems=8, samples=4)
    first, second = table_rows([run])
    assert (first.first, first.last, first.full) == (k.points[1], k.points[0], seconds.points[1])
    assert (second.selector, second.full) == ("majority, modelled", guess.points[0])
    cells = [line.strip("| ").split(" | ") for line in markdown([run])]
    assert cells[2][6:] == ["8", "4", "50.0 +20.0 −12.5", "4", "75.0 ± 15.0", "2", "62.5 +17.5 −12.5", "VALID"]
    assert cells[3][6:] == ["8", "4", "–", "–", "–", "3", "100.0 +0.0 −10.0", "VALID"]
    body = latex(table_rows([run])).splitlines()
    assert r"\toprule" in body
    assert r"org/m\_1 & majority & $50.0^{+20.0}_{-12.5}$ & 4 & $75.0 \pm 15.0$ & 2 & $62.5^{+17.5}_{-12.5}$ \\" in body
    assert len({line.count("&") for line in body if line.endswith(r"\\")}) == 1


def markdown(runs: list[RunSummary]) -> list[str]:
    from harness.reports.tables import markdown as table

    return table(table_rows(runs)).splitlines()


def test_an_invalid_run_says_so_in_every_file(tmp_path: Path) -> None:
    for path in (*tables(CASES["invalid"], tmp_path), *page(CASES["invalid"], tmp_path)):
        assert "INVALID" in path.read_text(), path.name


def test_latex_signs() -> None:
    spelled = {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "^": r"\textasciicircum{}",
        "_": r"\_",
        "%": r"\%",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
    for sign, wanted in spelled.items():
        assert latex_text(f"a{sign}b") == f"a{wanted}b"
    assert latex_text("a---b-c") == "a-{}-{}-b-c"
    assert latex_text("a\n\\input{x}") == r"a \textbackslash{}input\{x\}"
    body = latex(table_rows([samples.run(samples.HOSTILE)]))
    commands = set(re.findall(r"\\[a-z]+", body))
    known = {"usepackage", "begin", "toprule", "midrule", "bottomrule", "end", "max", "textless", "textgreater"}
    assert commands <= {f"\\{name}" for name in known | {"textbackslash", "char"}}


def test_markdown_signs() -> None:
    assert markdown_text("a|b\n`c` *d* [e](f) _g_ h_i") == r"a\|b \`c\` \*d\* \[e\](f) \_g\_ h_i"
    assert markdown_text("<b>&") == "&lt;b&gt;&amp;"
    rows = markdown([samples.run(samples.HOSTILE + "|x\ny")])
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_caption_states_what_was_run(tmp_path: Path) -> None:
    other = samples.run("zoo/student", facts={**samples.FACTS, "dtype": "bfloat16", "secret": "unsaid"})
    _, _, path, _ = tables([samples.run(), other, samples.invalid("zoo/third")], tmp_path)
    text = path.read_text()
    assert text.count("\n") == 1
    for words in ("40 problems", "64 samples", "budget 8s per problem", "latency protocol", "engine version 0.1.0"):
        assert words in text
    assert "dtype float32 (teacher and third), bfloat16 (student)" in text
    assert "INVALID: third: 3 of 40 problems" in text
    assert "unsaid" not in text
    assert "temperature" not in text


class Reader(HTMLParser):
    """Collects a page's tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    hostile: str = samples.HOSTILE
    bad = samples.run(
        hostile,
        task=hostile,
        run=hostile,
        selectors=(hostile, 'x" onload="alert(1)'),
        validity="INVALID",
        reasons=(hostile,),
        facts={hostile: hostile, "engine": hostile},
        counts={hostile: 1},
        budget=hostile,
    )
    (path,) = page([bad, *samples.pair()], tmp_path)
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    assert reader.tags.count("script") == 3 + 1, "a chart's data for each of two groups, the library and our own"
    assert not {"img", "iframe", "link", "object", "foreignobject"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    links = [value for name, value in reader.attributes if name.endswith("href") or name == "src"]
    assert all(link.startswith("#") for link in links)
    assert reader.words.count(hostile) >= 8
    ids = [value for name, value in reader.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in links} <= set(ids)
    clips = {clip for _, value in reader.attributes for clip in re.findall(r"url\(#([^)]*)\)", value)}
    assert clips
    assert clips <= set(ids)


@pytest.mark.usefixtures("style")
def test_hostile_names_are_only_text_in_svg() -> None:
    root = ElementTree.fromstring(rendered(drawn([samples.run(samples.HOSTILE), samples.run("other")]), "svg"))
    tags = {element.tag.rsplit("}", 1)[-1] for element in root.iter()}
    assert "script" not in tags
    assert samples.HOSTILE in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_page_shows_verdicts_figures_table_and_facts(tmp_path: Path) -> None:
    (path,) = page([samples.run(), samples.invalid()], tmp_path)
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.tags.count("svg") == 2 + 2 + 3  # figures, and the looks of two models and three selectors
    assert reader.tags.count("tr") == 1 + 6
    words = [word.strip() for word in reader.words]
    assert words.count("VALID") == 1 + 3
    assert "3 of 40 problems ran past their deadline by more than one decode step" in words
    assert "float32" in words


def test_page_of_nothing(tmp_path: Path) -> None:
    (path,) = page([], tmp_path)
    assert "No runs" in path.read_text()
    assert [p.name for p in (*tables([], tmp_path), *points([], tmp_path))] == [
        "table.md",
        "table.tex",
        "caption.txt",
        "caption.tex",
        "points.csv",
    ]
    assert figures([], tmp_path) == []
