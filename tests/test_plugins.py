import json
from pathlib import Path
from typing import Literal

import pytest
from fakes import write_plugins

from harness import plugins
from harness.errors import UserError
from harness.nouns import Candidate, Graded
from harness.plugin_options import read_options


def sample(
    level: int,
    *,
    split: Literal["test", "train"] = "test",
    share: float = 0.5,
    only: tuple[int, ...] | None = None,
    strict: bool = False,
    name: str | None = None,
) -> None:
    """A function with every kind of option."""


def test_values_are_read_by_their_annotation() -> None:
    pairs = ["split=train", "share=1e-3", "only=1,2, 5", "strict=yes", "name=a=b"]
    assert read_options(sample, "task x", pairs) == {
        "split": "train", "share": 1e-3, "only": (1, 2, 5), "strict": True, "name": "a=b",
    }  # fmt: skip
    assert read_options(sample, "task x", ["only=none", "name=none"]) == {"only": None, "name": None}


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("splt=test", "task x takes no option 'splt'; it takes name, only, share, split, strict"),
        ("split=dev", "task x: split wants test | train, got 'dev'"),
        ("share=half", "task x: share wants float, got 'half'"),
        ("only=1,x", "task x: only wants int,... | none, got '1,x'"),
        ("strict=maybe", "task x: strict wants bool, got 'maybe'"),
        ("share", "task x: cannot read the option 'share'; write name=value"),
        ("level=3", "task x takes no option 'level'"),
    ],
)
def test_a_wrong_option_is_answered_with_what_exists(pair: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_options(sample, "task x", [pair])
    assert str(caught.value).startswith(says)


def test_a_required_keyword_is_asked_for() -> None:
    def needs(*, path: str) -> None: ...

    with pytest.raises(UserError, match="plug-in p needs the option path; write path=str"):
        read_options(needs, "plug-in p", [])


def test_built_ins_are_found_without_importing_them() -> None:
    assert {"arithmetic", "gsm8k", "math", "math500"} <= set(plugins.builtins("tasks"))
    assert plugins.builtins("tasks")["math"].module == "harness.tasks.math_"
    assert {"coverage", "majority", "first"} <= set(plugins.builtins("selectors"))
    assert {"transformers", "replay"} <= set(plugins.builtins("models"))


def test_a_users_file_gives_task_selector_and_model(tmp_path: Path) -> None:
    file = write_plugins(tmp_path)
    task = plugins.load_task(f"{file}:sums", ["num_problems=7"])
    assert (task.name, len(list(task.problems))) == ("sums", 7)
    selector = plugins.load_selector(f"{file}:longest", ["least=2"])
    some = tuple(Candidate(i, "x" * i, None, None, i, 0.0) for i in range(3))
    assert selector.select is not None
    assert selector.name == "longest"
    assert selector.select("", some) == some[2]
    assert selector.select("", some[:2]) is None
    assert plugins.load_model(f"{file}:adder", "transformers", ["wrong_every=3"]).name == "adder"


def test_a_module_in_the_current_folder_is_found_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tasks_for_ttc.py").write_text(write_plugins(tmp_path).read_text())
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert plugins.load_task("my_tasks_for_ttc:sums").name == "sums"


def test_an_installed_entry_point_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere_ttc.py").write_text(write_plugins(tmp_path).read_text())
    info = tmp_path / "elsewhere_ttc-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere-ttc\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ttc.tasks]\nfar-sums = elsewhere_ttc:sums\n[ttc.models]\nfar-adder = elsewhere_ttc:adder\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "far-sums" in plugins.names("tasks")
    assert plugins.load_task("far-sums", ["num_problems=2"]).name == "sums"
    assert not plugins.names_checkpoint("far-adder")
    assert plugins.load_model("far-adder", "transformers").name == "adder"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("gsm8", "no task named 'gsm8'; there is aime24, aime25"),
        ("nowhere/mine.py:sums", "no file 'nowhere/mine.py' to take the plug-in from"),
        ("no_such_module_ttc:sums", "no module 'no_such_module_ttc'"),
        ("mine.py", "'mine.py' names a file; write which function of it is meant: mine.py:NAME"),
        ("json:loadz", "'json' has no function 'loadz'; it has detect_encoding, dump"),
        ("json:dumps", "task json:dumps"),
    ],
)
def test_a_wrong_name_is_answered_with_what_exists(reference: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        plugins.load_task(reference, ["obj=1"] if reference == "json:dumps" else [])
    assert str(caught.value).startswith(says)


def test_a_file_that_fails_says_how(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(UserError, match="fails when imported: ZeroDivisionError: division by zero"):
        plugins.load_task(f"{tmp_path / 'broken.py'}:task")


def test_a_file_without_the_function_names_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no function 'summs'; it has Adder, adder, longest, sums"):
        plugins.load_task(f"{write_plugins(tmp_path)}:summs")


def test_an_option_goes_to_the_selectors_that_take_it(tmp_path: Path) -> None:
    file = write_plugins(tmp_path)
    loaded = plugins.load_selectors(["majority", f"{file}:longest"], ["least=9"])
    short = (Candidate(0, "short", None, None, 1, 0.0),)
    assert loaded[1].select is not None
    assert loaded[1].select("", short) is None
    with pytest.raises(UserError, match="no selector among majority takes the option 'least=9'"):
        plugins.load_selectors(["majority"], ["least=9"])


def test_data_for_a_task_without_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"task arithmetic reads no data file; leave out --data 'x\.jsonl'"):
        plugins.load_task("arithmetic", data="x.jsonl")


def test_what_is_no_selector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a function of \(prompt, candidates\) nor"):
        plugins.load_selector(f"{write_plugins(tmp_path)}:sums")


def test_a_stored_run_is_replayed_by_default(tmp_path: Path) -> None:
    (tmp_path / "completions").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    assert plugins.default_engine(str(tmp_path)) == "replay"


@pytest.mark.parametrize(("family", "engine"), [("llama", "native"), ("mamba2", "native"), ("bamba", "transformers")])
def test_a_checkpoint_of_its_families_is_run_by_the_native_engine(tmp_path: Path, family: str, engine: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    assert plugins.default_engine(str(tmp_path)) == engine
    assert plugins.default_engine("preset/llamba-1b") == "native"


def test_the_engine_of_a_checkpoint_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint folder"):
        plugins.default_engine(str(tmp_path / "nowhere"))


def test_coverage_is_found_with_its_closed_form() -> None:
    coverage = plugins.load_selector("coverage")
    assert coverage.expected is not None
    some = tuple(Candidate(i, "", None, None, 0, 0.0) for i in range(10))
    value = coverage.expected(Graded(some, (True,) * 3 + (False,) * 7), [5])[0]
    assert value == pytest.approx(0.916667, abs=1e-6)


def test_a_function_that_takes_the_rest_gets_other_names_as_text() -> None:
    from harness.plugin_options import read_options

    def engine(checkpoint: str, *, rows: int = 1, **rest: str) -> None: ...

    found = read_options(engine, "engine e", ["rows=2", "block_size=32"])
    assert found == {"rows": 2, "block_size": "32"}
