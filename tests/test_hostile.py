"""Hostile completions through every command: they stay text, whatever shows them."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile import NAME, TEXTS, write_hostile

from harness.storage.runs import open_run

ROOT = Path(__file__).resolve().parents[1]
OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that a terminal or a reader obeys; not the newline and the tab."""  # fmt: skip


def ttc(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300)
    assert done.returncode == code, done.stderr.decode(errors="replace")[-3000:]
    assert b"Traceback" not in done.stderr
    for stream in (done.stdout, done.stderr):
        assert not OBEYED.search(stream.decode("utf-8")), arguments
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run, its report and its exports."""
    folder = tmp_path_factory.mktemp("hostile")
    file = write_hostile(folder)
    ttc(folder, "import", file.name, "--task", "math", "--out", "run", "--model", NAME.replace("/", "|")[:120])
    return folder


def test_it_is_stored_as_it_came_and_nothing_else_is_written(folder: Path) -> None:
    run = open_run(folder / "run")
    texts = {row["sample_index"]: row["text"] for row in run.completions() if row["problem_id"] == "plain"}
    kinds = {name: texts[number] for number, name in enumerate(TEXTS)}
    assert kinds.pop("half") == "\ufffd \ufffd \\boxed{\ufffd}"
    assert kinds.pop("pair") == "\U0001f600 \\boxed{4}"
    assert kinds == {name: text for name, text in TEXTS.items() if name in kinds}
    verdicts = {row["sample_index"]: row["verdict"] for row in run.verdicts() if row["problem_id"] == "plain"}
    judged = {name: verdicts[number] for number, name in enumerate(TEXTS)}
    assert {name for name, verdict in judged.items() if verdict == "correct"} >= {"pair", "long", "lines"}
    assert {judged[name] for name in ("script", "latex", "template", "python", "sheet", "powers", "digits")} <= {
        "wrong", "unparsed", "no_answer", "timeout",
    }  # fmt: skip
    assert not list(folder.parent.rglob("owned*"))


def test_the_terminal_obeys_none_of_it(folder: Path) -> None:
    ttc(folder, "show", "run")
    shown = ttc(folder, "show", "run", "plain").stdout.decode()
    assert "\\x1b]0;owned\\x07\\x1b[2J" in shown
    assert "\\u202eevil" in shown
    assert len(shown) < 100_000, "ten million letters are folded away"
    ttc(folder, "show", "run", NAME)
    ttc(folder, "select", "run")
    assert json.loads(ttc(folder, "select", "run", "--json").stdout)["runs"]
    assert NAME[:10] in ttc(folder, "show", "run", "nothing", code=2).stderr.decode()
    pairs = folder / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps({"gold": "4", "text": text}) for text in TEXTS.values()))
    graded = ttc(folder, "grade", "pairs.jsonl").stdout.decode().splitlines()
    assert len(graded) == len(TEXTS)
    assert json.loads(graded[list(TEXTS).index("bidi")])["text"] == TEXTS["bidi"]
    bad = folder / "bad.jsonl"
    bad.write_text(json.dumps({"problem_id": NAME, "gold": NAME, "finish_reason": NAME, "text": NAME}))
    told = ttc(folder, "import", "bad.jsonl", "--task", "math", "--out", "never", code=2).stderr.decode()
    assert told.count("\n") == 1


class Seen(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.within = ""
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.within = tag

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.scripts.append(data)
        self.within = ""


def pages(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / "report").rglob("*.html"))


def test_the_report_shows_it_as_text(folder: Path) -> None:
    ttc(folder, "report", "run", "--out", "report")
    assert list(pages(folder))
    for page in pages(folder):
        html = page.read_text("utf-8")
        assert not OBEYED.search(re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL))
        seen = Seen()
        seen.feed(html)
        assert {"img", "iframe", "object", "embed", "base", "link", "foreignobject"}.isdisjoint(dict(seen.tags))
        for tag, attributes in seen.tags:
            assert not any(name.startswith("on") for name in attributes), (tag, attributes)
            address = attributes.get("href") or attributes.get("src") or attributes.get("xlink:href") or ""
            assert not re.match(r"\s*(javascript|data|https?|//)", address), (tag, address)
        assert not any("evil.example" in script and "<script" in script for script in seen.scripts)
        assert html.count("<script") == len([tag for tag, _ in seen.tags if tag == "script"])
    for table in (folder / "report").rglob("*.tex"):
        source = table.read_text()
        assert not re.search(r"\\(input|write|immediate|openout|catcode)\b", source)
        assert not OBEYED.search(source)
    for words in (*(folder / "report").rglob("*.md"), *(folder / "report").rglob("*.txt")):
        assert not OBEYED.search(words.read_text("utf-8"))
    for rows in (folder / "report").rglob("*.csv"):
        assert not OBEYED.search(rows.read_text("utf-8"))
        assert not re.search(r"(^|,)[=+@]", rows.read_text("utf-8"), re.MULTILINE), "no cell is a formula"
    assert not list(folder.parent.rglob("owned*"))


@pytest.mark.parametrize("form", ["lm-eval", "inspect", "datasets"])
def test_an_export_holds_it_and_can_be_read_again(folder: Path, form: str) -> None:
    ttc(folder, "export", "run", "--to", form, "--out", f"out-{form}")
    for file in (folder / f"out-{form}").rglob("*"):
        assert file.resolve().is_relative_to(folder.resolve())
        assert file.name.isprintable()
    if form != "datasets":
        pattern = "samples_*.jsonl" if form == "lm-eval" else "*.eval"
        (log,) = (folder / f"out-{form}").rglob(pattern)
        ttc(folder, "import", str(log), "--task", "math", "--out", f"again-{form}")
        again = {row["text"] for row in open_run(folder / f"again-{form}").completions()}
        assert again == {row["text"] for row in open_run(folder / "run").completions()}


# The source itself

DANGEROUS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "sympify",
    "parse_expr",
    "lambdify",
    "extractall",
    "system",
    "popen",
}
UNPICKLES = {("pickle", "load"), ("pickle", "loads"), ("joblib", "load"), ("yaml", "load")}
ALLOWED = {("re", "compile"), ("torch", "compile"), ("platform", "system")}


def calls(tree: ast.AST) -> Iterator[tuple[str, str, ast.Call]]:
    """Every call of a module: the name before the dot, the name, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield "", node.func.id, node
            elif isinstance(node.func, ast.Attribute):
                owner = node.func.value
                yield owner.id if isinstance(owner, ast.Name) else "?", node.func.attr, node


def sources() -> list[Path]:
    rooms = ("harness", "tasks", "models", "selectors", "reports")
    found = {path.resolve() for room in rooms for path in (ROOT / room).rglob("*.py")}
    assert len(found) > 100
    return sorted(found)


def test_no_source_evaluates_text_unpickles_or_trusts_code_by_itself() -> None:
    for path in sources():
        tree = ast.parse(path.read_text("utf-8"))
        for owner, name, call in calls(tree):
            place = f"{path.relative_to(ROOT)}, line {call.lineno}: {owner}.{name}"
            # A module in evaluation mode is `model.eval()`: it takes nothing.
            harmless = (owner, name) in ALLOWED or (name == "eval" and owner and not call.args) or owner == "typer"
            assert name not in DANGEROUS or harmless, place
            # What a run's driver sends its own workers goes through Ray, which unpickles all that it carries.
            if path.name != "replica.py":
                assert (owner, name) not in UNPICKLES, place
            keywords = {word.arg: word.value for word in call.keywords}
            if (owner, name) == ("torch", "load"):
                safe = keywords.get("weights_only")
                assert isinstance(safe, ast.Constant), place
                assert safe.value is True, place
            trust = keywords.get("trust_remote_code")
            assert not (isinstance(trust, ast.Constant) and trust.value), place
            shell = keywords.get("shell")
            assert shell is None or (isinstance(shell, ast.Constant) and not shell.value), place
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                named = [*node.args.args, *node.args.kwonlyargs]
                values = [*node.args.defaults, *node.args.kw_defaults]
                for one, default in zip(reversed(named), reversed(values), strict=False):
                    if one.arg == "trust_remote_code" and isinstance(default, ast.Constant):
                        assert default.value is False, f"{path}: {node.name}"


def test_a_run_does_not_say_what_code_runs(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('owned', 'w')\ndef task(): ...\n")
    (tmp_path / "judge.py").write_text("def judge(prompt, completions):\n    return [0.5] * len(completions)\n")
    (tmp_path / "x.jsonl").write_text('{"problem_id": "p", "gold": "4", "text": "so 4"}')
    ttc(tmp_path, "import", "x.jsonl", "--task", "math", "--out", "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest["spec"] |= {"task_plugin": "./evil.py:task", "engine": "null"}
    manifest.pop("sha256", None)
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    ttc(tmp_path, "score", "run", "--reward-model", "./judge.py:judge", "-q")
    assert not (tmp_path / "owned").exists()
    for command in (["show", "run"], ["select", "run"], ["report", "run", "--out", "report"], ["doctor", "run"]):
        subprocess.run([sys.executable, "-m", "harness", *command], cwd=tmp_path, capture_output=True, timeout=300,
                       env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert not (tmp_path / "owned").exists()


def test_secrets_of_the_environment_are_in_no_record(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "from harness.nouns import Problem, Task, Verdict\n"
        "class Loud:\n"
        "    name, facts = 'loud', {}\n"
        "    def generate(self, requests, deadline):\n"
        "        if requests[0].sampling.max_tokens > 4:\n"
        "            raise OSError('401 for key ' + os.environ['MY_API_KEY'])\n"
        "        return iter(())\n"
        "def loud(): return Loud()\n"
        "def one(): return Task('one', [Problem('p', '?', '4')], str, lambda g, a: Verdict('correct'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MY_API_KEY": "sk-very-secret-0123"}
    command = [sys.executable, "-m", "harness", "bench", "./mine.py:loud", "--task", "./mine.py:one", "--samples", "1",
               "--selector", "first", "--out", "run"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=False)
    (row,) = open_run(tmp_path / "run").completions()
    assert row["error"] == "model loud raised OSError: 401 for key $MY_API_KEY (mine.py, line 7)"
    written = [done.stdout, done.stderr, *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())]
    assert not any(b"sk-very-secret" in content for content in written)
