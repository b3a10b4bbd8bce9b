"""What the page holds: findings in words, every problem and completion, formulas, and nothing that could run."""

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import report_runs
import report_samples as samples

from harness.analysis.summarise import summarise_all
from harness.analysis.summary import as_document
from harness.plugins import load_selectors
from harness.reporting import material_of
from harness.reports import problem_pages
from harness.reports.browser import folded, shortened, spread, tags_of, views
from harness.reports.grouping import groups
from harness.reports.interactive import as_script_data, chart
from harness.reports.mathematics import Typesetter, mathml
from harness.reports.page import page
from harness.reports.points import points
from harness.reports.words import findings, glossary
from harness.storage.runs import Run


class Elements(HTMLParser):
    """A page's elements, its scripts, and the text outside of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = {name: value or "" for name, value in attrs}
        self.attributes += found.items()
        if tag == "script":
            self.scripts.append((found, ""))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"] and not self.scripts[-1][1]:
            self.scripts[-1] = (self.scripts[-1][0], data)
        else:
            self.words.append(data)


def written(runs: list[Run], out: Path) -> list[Path]:
    selectors = load_selectors(["coverage", "majority"])
    summaries = summarise_all(runs, selectors)
    out.mkdir()
    return page(summaries, out, material_of(summaries, runs, selectors))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("pair")
    return [
        report_runs.write_run(folder / "a", hostile=True, scored=True),
        report_runs.write_run(folder / "b", "zoo/student", skill=0.3, step_s=0.04),
    ]


@pytest.fixture(scope="module")
def whole(pair: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(pair, tmp_path_factory.mktemp("whole") / "out")[0]


def test_only_the_scripts_of_the_policy_can_run(whole: Path) -> None:
    found = Elements(whole.read_text())
    policy = next(value for name, value in found.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.endswith("style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'")
    data = [text for given, text in found.scripts if given.get("type") == "application/json"]
    running = [text for given, text in found.scripts if "type" not in given]
    assert (len(data), len(running)) == (1, 2)
    for script in running:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert not re.search("[<>&]", data[0])
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    links = [value for name, value in found.attributes if name in ("src", "href") or name.endswith(":href")]
    assert all(link.startswith("#") for link in links)
    assert not {"img", "iframe", "object", "embed", "link", "base"} & set(found.tags)


def test_every_completion_is_there_with_what_is_known_of_it(whole: Path, pair: list[Run]) -> None:
    found = Elements(whole.read_text())
    text = " ".join(" ".join(found.words).split())
    classes = [value for name, value in found.attributes if name == "class"]
    assert classes.count("problem") == 12
    assert classes.count("sample") == 2 * 12 * 8
    assert report_runs.HOSTILE_TEXT.split("\x1b")[0].strip() in text
    assert "\\x1b[31mred \\u202eevil" in text
    verdict = next(row for row in pair[0].verdicts() if row["verdict"] == "correct")
    assert f"answer {verdict['answer']}" in text
    assert "finished at 1 s, stop, score" in text
    assert "Scores by zoo/orm : 0.5, " in text or "Scores by zoo/orm: 0.5, " in text
    assert found.tags.count("mfrac") >= 12


def test_tags_say_what_happened(tmp_path: Path) -> None:
    easy = report_runs.write_run(tmp_path / "a", problems=4, skill=2.0)
    never = report_runs.write_run(tmp_path / "b", problems=4, skill=0.0)
    for view in views([easy, never], ["a", "b"]):
        outcomes = [{s.verdict for s in arm.samples} for arm in view.arms]
        solved = [arm.correct for arm in view.arms]
        assert solved[1] == 0
        assert ("models-differ" in view.tags) == (solved[0] > 0)
        assert ("some" in view.tags) == (solved[0] > 0)
        assert {"wrong", "no_answer"} & set(view.tags) == {"wrong", "no_answer"} & (outcomes[0] | outcomes[1])
        assert tags_of(view.arms[1:])[0] == "none"


def test_the_latest_verdict_and_score_stand(tmp_path: Path) -> None:
    run = report_runs.write_run(tmp_path / "a", problems=2, samples=2)
    row = next(row for row in run.verdicts() if row["problem_id"] == "sums/1" and row["sample_index"] == 1)
    run.add_verdicts([row | {"verdict": "timeout", "reason": "took too long"}])
    second = list(views([run], ["a"]))[1]
    assert (second.arms[0].samples[1].verdict, second.arms[0].samples[1].reason) == ("timeout", "took too long")
    assert second.arms[0].outcomes["timeout"] == 1


def test_texts_that_are_kept_show_every_answer_first() -> None:
    rows = [{"sample_index": i, "answer_class": [0, 0, 0, 1, None, 1][i]} for i in range(6)]
    assert [row["sample_index"] for row in spread(rows, 3)] == [0, 3, 4]
    assert [row["sample_index"] for row in spread(rows, 5)] == [0, 3, 4, 1, 5]
    assert len(spread(rows, 99)) == 6


def test_long_texts_are_folded_and_very_long_ones_cut() -> None:
    assert folded("short") == ("short", "")
    text = "A sentence of some length. " * 100
    seen, rest = folded(text)
    assert seen + rest == text
    assert seen.endswith(". ") or seen.endswith(".")
    assert 300 < len(seen) <= 700
    assert "".join(folded("x" * 5000)) == "x" * 5000
    cut = shortened("a" * 30_000 + "b" * 30_000)
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")
    assert "40,000 characters are left out here" in cut


def test_a_large_run_gets_a_page_for_each_problem(
    pair: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem_pages, "FITS", 0)
    (tmp_path / "out" / "problems").mkdir(parents=True)
    old = tmp_path / "out" / "problems" / "00099.html"
    old.write_text("an earlier report")
    other = tmp_path / "out" / "problems" / "notes.html"
    other.write_text("the user's own")
    selectors = load_selectors(["coverage"])
    summaries = summarise_all(pair, selectors)
    paths = page(summaries, tmp_path / "out", material_of(summaries, pair, selectors))
    assert [path.name for path in paths] == ["index.html", *(f"{n:05d}.html" for n in range(1, 13))]
    assert (old.exists(), other.exists()) == (False, True)
    index = Elements(paths[0].read_text())
    assert [value for name, value in index.attributes if name == "href"][:2] == [
        "problems/00001.html",
        "problems/00002.html",
    ]
    last = Elements(paths[-1].read_text())
    assert [value for name, value in last.attributes if name == "href"] == ["../index.html#problems", "00011.html"]
    assert "script-src 'sha256-" in next(v for n, v in last.attributes if n == "content" and "default-src" in v)


def test_csv_json_and_chart_hold_the_same_points(pair: list[Run], tmp_path: Path) -> None:
    summaries = summarise_all(pair, load_selectors(["coverage", "majority"]))
    document = json.loads(json.dumps(as_document(summaries)))
    told = [
        (run["run"], curve["selector"], curve["axis"], *(point[key] for key in ("x", "value", "low", "high", "n")))
        for run in document["runs"]
        for curve in run["curves"]
        for point in curve["points"]
    ]
    (path,) = points(summaries, tmp_path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("x", "value", "low", "high", "n")
    assert [(row["run"], row["selector"], row["axis"], *(float(row[key]) for key in keys)) for row in rows] == told
    (group,) = groups(summaries)
    drawn = [
        (series["axis"], series["selector"], *point[:4])
        for series in chart(group)["series"]
        for point in series["points"]
    ]
    wanted = [
        (axis, selector, x, 100 * value, 100 * low, 100 * high) for _, selector, axis, x, value, low, high, _ in told
    ]
    assert [row[:2] for row in drawn] == [row[:2] for row in wanted]
    assert [row[2:] for row in drawn] == [pytest.approx(row[2:], rel=1e-5, abs=1e-3) for row in wanted]


def test_data_for_the_script_cannot_end_the_script() -> None:
    value = {"</script><script>": ["<!--", "&", "\u2028", float("nan"), 1.5]}
    text = str(as_script_data(value))
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"</script><script>": ["<!--", "&", "\\u2028", None, 1.5]}


FORMULAS = {
    r"\frac{1}{2}": ["mfrac", "mn", "mn"],
    r"\sqrt[3]{x}": ["mroot"],
    r"x_1^2": ["msubsup"],
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}": ["mtable", "mtr", "mtd"],
    r"\boxed{5}": ["menclose"],
}


@pytest.mark.parametrize("source", FORMULAS)
def test_formulas_become_mathml(source: str) -> None:
    made = mathml(source, False)
    assert made is not None
    tree = ElementTree.fromstring(made)
    assert tree.attrib["alttext"] == source
    tags = [element.tag for element in tree.iter()]
    assert all(tag in tags for tag in FORMULAS[source])


@pytest.mark.parametrize(
    "source",
    [
        r"\text{<img src=x onerror=alert(1)>}", r"\href{javascript:alert(1)}{x}", r'\style{x:"y"}{z}', r"a<b>c&d",
        r"\text{</mtext><script>alert(1)</script>}", r"\class{x onclick=1}{y}", r"\text{&lt;script&gt;}",
        r"\hspace{99999em}x", r"\color{red}x", r"\mathop{<svg onload=alert(1)>}",
    ],
)  # fmt: skip
def test_formulas_bring_no_markup_in(source: str) -> None:
    made = mathml(source, False)
    if made is None:
        return
    found = Elements(str(made))
    assert set(found.tags) <= {"math", "mrow", "mi", "mo", "mn", "mtext", "mspace", "mstyle"}
    assert {name for name, _ in found.attributes} <= {"display", "alttext", "stretchy", "mathvariant", "form", "fence"}


@pytest.mark.parametrize("source", ["", r"\sqrt{", r"\frac{1}{", "{" * 30 + "x" + "}" * 30, "x" * 601, r"\left("])
def test_what_is_no_formula_stays_text(source: str) -> None:
    assert mathml(source, False) is None
    assert source in str(Typesetter().text(f"before ${source}$ after"))


def test_money_is_no_formula_and_controls_are_spelled_out() -> None:
    typeset = Typesetter()
    assert str(typeset.text("costs $5 and $6 or <b>")) == "costs $5 and $6 or &lt;b&gt;"
    assert "<math" in str(typeset.text("so $x^2$ it is"))
    assert str(typeset.text("a\u202eb\x07")) == "a\\u202eb\\x07"
    assert "<math" in str(typeset.answer(r"\frac{1}{2}"))
    assert str(typeset.answer("<b>12</b>")) == "&lt;b&gt;12&lt;/b&gt;"
    few = Typesetter(formulas=1)
    assert "<math" in str(few.text("$a$"))
    assert str(few.text("$b$")) == "$b$"
    assert "<math" in str(few.text("$a$"))


def test_findings_name_the_leader_the_gap_and_the_doubt() -> None:
    (group,) = groups(samples.pair())
    told = " ".join(findings(group))
    assert (
        "2 models answered 40 problems of math500, with up to 64 samples for each, given 8s for each problem." in told
    )
    best = max(
        (curve.points[-1].value, run.model) for run in samples.pair() for curve in run.curves
        if curve.axis == "seconds" and curve.selector == "majority"
    )  # fmt: skip
    assert (
        f"With everything that was given, {best[1].split('/')[1]} with majority is right on {100 * best[0]:.1f} %"
        in told
    )
    assert "this may be chance" in told
    assert "With an eighth of it" in told
    assert "a perfect choice among the samples would gain" in told
    sharp = samples.pair()
    clear = [samples.run(shift=0.0, half=0.001), samples.run("zoo/student", shift=-0.2, half=0.001)]
    assert "Each lies outside the other's interval" in " ".join(findings(groups(clear)[0]))
    assert "Beware" in " ".join(findings(groups([sharp[0], samples.invalid()])[0]))
    assert findings(groups([samples.run(curves=())])[0]) == [
        "One model answered 40 problems of math500, with up to 64 samples for each, given 8s for each problem."
    ]
    assert {"coverage", "majority"} <= set(glossary(samples.pair()))
    assert "best_of_n" not in glossary(samples.pair())
