"""Attacks by whoever made a run folder or a data set: each is tried as its maker would."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import SCRIPT
from recorded_runs import write_run
from test_hostile import OBEYED, Seen, ttc

from harness import plugins
from harness.analysis.summarise import summarise
from harness.errors import UserError
from harness.exporting.export import export_run
from harness.foreign import code_of_model, code_of_task
from harness.storage.integrity import examine_run, is_as_written
from harness.storage.locking import is_being_written, writing
from harness.storage.manifest_form import misfit
from harness.storage.records import KINDS, PROBLEMS
from harness.storage.runs import Run, open_run, take_over
from harness.storage.storing import put_text

ROOT = Path(__file__).resolve().parents[1]
EVIL = SCRIPT + "\x1b]0;owned\x07\x1b[31m\x9b31m\u202e[bold]x[/bold][/] \\input{/etc/passwd} $x^$ `a` | b"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    times = np.array([[1.0, 2.0], [2.0, 1.0]])
    return write_run(tmp_path, "run", times > 1.5, times, rewards=times)


# Links and pipes among the files of somebody's run


@pytest.mark.parametrize("name", [".lock", ".manifest.json.unfinished"])
def test_a_link_in_a_run_has_no_other_file_overwritten(tmp_path: Path, run: Run, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(precious)
    if name == ".lock":
        with pytest.raises(UserError, match="in the place of the link"), writing(run.path):
            pass
    else:
        put_text(run.path / "manifest.json", (run.path / "manifest.json").read_text())
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["completions", "verdicts", "scores", "timing", "set_aside"])
def test_a_run_whose_folders_lead_elsewhere_is_not_written(tmp_path: Path, run: Run, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (run.path / name).exists():
        (run.path / name).rename(elsewhere)
    else:
        elsewhere.mkdir()
    (elsewhere / ".precious.unfinished").write_text("mine")
    (run.path / name).symlink_to(elsewhere)
    with writing(run.path), pytest.raises(UserError, match=f"{name}' is a link; put the folder it points to"):
        take_over(open_run(run.path))
    assert (elsewhere / ".precious.unfinished").read_text() == "mine"


@pytest.mark.parametrize("name", ["problems.parquet", "completions/000007.parquet", "timing.parquet", ".lock"])
def test_a_pipe_in_a_run_hangs_nobody(run: Run, name: str) -> None:
    """Who opens one to read it waits for a writer for ever."""
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    assert is_being_written(run.path) is False
    told = []
    for look in (run.problems, run.completions, lambda: examine_run(run.path)):
        try:
            look()
        except UserError as error:
            told.append(str(error))
    assert all("is no file of a run" in sentence for sentence in told)
    # Without a timing.parquet a run is one that has not finished, and a lock is nobody's record.
    assert bool(told) == (name not in ("timing.parquet", ".lock"))


def test_a_pipe_among_the_files_of_a_data_set_hangs_nobody(tmp_path: Path) -> None:
    place = tmp_path / "test" / "algebra"
    place.mkdir(parents=True)
    row = {"problem": "?", "solution": "\\boxed{4}", "type": "Algebra", "level": "Level 1"}
    (place / "1.json").write_text(json.dumps(row))
    os.mkfifo(place / "2.json")
    assert len(plugins.load_task("math", [], str(tmp_path)).problems) == 1


def test_an_archive_is_read_through_no_link_and_written_nowhere(tmp_path: Path) -> None:
    row = {"problem": "?", "solution": "\\boxed{4}", "type": "Algebra", "level": "Level 1"}
    (tmp_path / "secret.json").write_text(json.dumps(row | {"problem": "the secret"}))
    (tmp_path / "1.json").write_text(json.dumps(row))
    with tarfile.open(tmp_path / "MATH.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "1.json", "MATH/test/algebra/1.json")
        archive.add(tmp_path / "1.json", "../../MATH/test/algebra/3.json")
        for kind, target in ((tarfile.SYMTYPE, str(tmp_path / "secret.json")), (tarfile.LNKTYPE, "/etc/passwd")):
            member = tarfile.TarInfo("MATH/test/algebra/2.json")
            member.type, member.linkname = kind, target
            archive.addfile(member)
    before = sorted(tmp_path.rglob("*"))
    prompts = [problem.prompt for problem in plugins.load_task("math", [], str(tmp_path / "MATH.tar.gz")).problems]
    assert "secret" not in str(prompts)
    assert sorted(tmp_path.rglob("*")) == before


# What a run says should be run


def test_a_run_names_no_code_by_an_option_either(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval runs what the task files of a folder name, so a run must not name the folder."""
    from harness.running.rescoring import prompts_of

    def loaded(*given: object) -> None:
        raise AssertionError(given)

    monkeypatch.setattr(plugins, "load_task", loaded)
    manifest = open_run(run.path).manifest
    evil = {"task_plugin": "lm_eval:gsm8k", "task_options": [f"include_path={tmp_path}"], "engine": "native"}
    manifest["spec"] |= evil
    run.manifest = manifest
    for named in (None, "lm_eval:gsm8k"):
        assert prompts_of(run, named) == ({"p000": "What is 2 + 2?", "p001": "What is 2 + 2?"}, "stored")


@pytest.mark.parametrize(
    ("changes", "task", "model"),
    [
        ({}, None, None),
        ({"task_options": ["num_problems=4"], "model_options": ["dtype=float32"]}, None, None),
        ({"task_plugin": "./evil.py:task"}, "./evil.py:task", None),
        ({"task_plugin": "lm_eval:x", "task_options": ["num_fewshot=2"]}, None, None),
        ({"task_plugin": "lm_eval:x", "task_options": ["include_path=."]}, "include_path=.", None),
        ({"task_options": ["unheard=of"]}, "unheard=of", None),
        ({"model": "evil:model"}, None, "evil:model"),
        ({"engine": "./evil.py:engine"}, None, "./evil.py:engine"),
        ({"engine": "transformers", "model_options": ["trust_remote_code=true"]}, None, "trust_remote_code=true"),
        ({"engine": "vllm", "model_options": ["dtype=float32", "worker_cls=evil.Worker"]}, None,
         "worker_cls=evil.Worker"),
    ],
)  # fmt: skip
def test_what_of_a_spec_would_have_code_run(changes: dict[str, Any], task: str | None, model: str | None) -> None:
    spec = {
        "task_plugin": "arithmetic", "task_options": [], "model": "zoo/teacher", "engine": "native",
        "model_options": [],
    } | changes  # fmt: skip
    assert (code_of_task(spec), code_of_model(spec)) == (task, model)


# What is printed


def test_what_a_library_logs_of_a_checkpoint_is_inert(tmp_path: Path) -> None:
    """transformers warns of a quantisation that it does not know, by the name that the config gives it."""
    script = (
        "import logging, sys, warnings\n"
        "from harness import cli\n"
        "def app():\n"
        "    logging.basicConfig()\n"
        f"    logging.getLogger('transformers').warning('unknown type %s', {EVIL!r})\n"
        "    logging.getLogger('other').error('%d', 'no number')\n"
        f"    warnings.warn({EVIL!r})\n"
        f"    raise RuntimeError({EVIL!r} + ' ' + __import__('os').environ['MY_API_KEY'])\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MY_API_KEY": "sk-very-secret-0123"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=120
    )
    told = done.stderr.decode()
    assert done.returncode == 1
    assert told.count("\\x1b]0;owned\\x07") >= 3
    assert "RuntimeError" in told
    assert not OBEYED.search(told)
    assert "$MY_API_KEY" in told
    assert "sk-very-secret" not in told


@pytest.mark.parametrize("kind", ["ValueError", "UserError"])
def test_a_traceback_that_was_asked_for_is_inert_and_without_secrets(tmp_path: Path, kind: str) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\nfrom harness.errors import UserError\n"
        f"def bad(): raise {kind}({EVIL!r} + os.environ['MY_API_KEY'])\n"
    )
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "MY_API_KEY": "sk-very-secret-0123", "TTC_TRACEBACK": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "harness", "check", "./mine.py:bad"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(b"ttc: plug-in ./mine.py:bad raised" if kind == "ValueError" else b"ttc: <script>")
    assert b"Traceback" in done.stderr
    assert not OBEYED.search((done.stdout + done.stderr).decode())
    assert b"sk-very-secret" not in done.stdout + done.stderr


# A run whose every word is hostile


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all texts in a JSON value."""
    if isinstance(value, dict):
        return [place for name in value for place in leaves(value[name], (*path, name))]
    if isinstance(value, list):
        return [place for number, each in enumerate(value) for place in leaves(each, (*path, number))]
    return [path] if isinstance(value, str) else []


def put_at(value: Any, path: tuple[Any, ...], text: str) -> str:
    """Replace a text; the one that stood there."""
    for name in path[:-1]:
        value = value[name]
    before: str = value[path[-1]]
    value[path[-1]] = text
    return before


def forged(folder: Path, name: str) -> Path:
    """A run that says something hostile wherever its form lets it say anything."""
    draw = np.random.default_rng(len(name))
    times = draw.uniform(1, 9, (6, 6))
    run = write_run(folder, name, times > 5, times, rewards=times / 10)
    run.add_scores([row | {"reward_model": EVIL} for row in run.scores()])
    run.add_verdicts([row | {"reason": EVIL} for row in run.verdicts()])
    manifest = run.manifest
    manifest["validity"] = {"verdict": "INVALID", "reasons": ["r"], "mend": ["m"], "warnings": ["w"]}
    manifest["engine"] |= dict.fromkeys(("engine", "engine_version", "dtype", "device_name", "sampler"), "x")
    manifest["machine"]["gpus"] = [{"name": "g"}]
    use = {"sitting": "x", "errors": {EVIL: 3}, "scored": 1}
    manifest["reward_models"] = [{"name": EVIL, "options": ["a=b"], "model": {"x": "y"}, "uses": [use]}]
    sampling = {"temperature": 0.5, "top_p": 1.0, "top_k": 0, "max_tokens": 9, "stop": ["s"], "seed": 0}
    manifest["spec"] |= {"sampling": sampling, "budget": None}
    manifest["segments"] = [{"segment": 0, "status": "s", "error": "e", "generate_s": 1.0}]
    hostile = 0
    for place in leaves(manifest):
        before = put_at(manifest, place, EVIL)
        hostile += misfit(manifest) is None
        if misfit(manifest) is not None:
            put_at(manifest, place, before)
    assert hostile > 30
    run.save()
    return run.path


def test_a_run_whose_every_word_is_hostile_is_shown_inert(tmp_path: Path) -> None:
    forged(tmp_path, "a")
    forged(tmp_path, "bb")
    for command in ("show a", "show a p000", "select a", "compare a bb", "report a bb --out report",
                    "export a --to datasets --out out"):  # fmt: skip
        ttc(tmp_path, *command.split())
    ttc(tmp_path, "doctor", "a", code=1)
    html = (tmp_path / "report" / "index.html").read_text("utf-8")
    seen = Seen()
    seen.feed(html)
    assert {"img", "svg/onload", "iframe", "base"}.isdisjoint(dict(seen.tags))
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
    for script in seen.scripts:
        assert SCRIPT[:20] not in script
    data = "".join(html.partition("<script>")[0])  # the data of the charts included, the libraries not
    assert not OBEYED.search(data)
    for file in [*(tmp_path / "report").iterdir(), tmp_path / "out" / "README.md"]:
        if file.suffix in (".md", ".txt", ".tex", ".csv"):
            text = file.read_text("utf-8")
            assert not OBEYED.search(text), file
            assert file.suffix != ".tex" or "\\input" not in text


def test_a_parquet_that_is_a_link_is_read_as_what_it_is(tmp_path: Path, run: Run) -> None:
    """A part may be a link, as storage of one's own may have it; it is read, and what is no part is told."""
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"password": ["x"]}), other)
    (part,) = (run.path / "completions").glob("*.parquet")
    part.unlink()
    part.symlink_to(other)
    with pytest.raises(UserError) as told:
        run.completions()
    assert "password" not in str(told.value)


@pytest.mark.parametrize(
    ("kind", "column"),
    [("completions", name) for name in ("started_s", "first_token_s", "finished_s", "decode_flops")]
    + [("scores", name) for name in ("scored_s", "reward_s", "reward_flops")],
)
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 6.1e305])
def test_numbers_that_nobody_measured_are_refused(run: Run, kind: str, column: str, value: float) -> None:
    """Found by fuzzing: an infinite first token times a rate of 0 is no number."""
    (part,) = (run.path / kind).glob("*.parquet")
    schema = KINDS[kind]
    rows = pq.read_table(part).to_pylist()
    pq.write_table(pa.Table.from_pylist([rows[0] | {column: value}, *rows[1:]], schema=schema), part)
    with pytest.raises(UserError, match=f"{column} = .*which nobody measured"):
        summarise(open_run(run.path), plugins.load_selectors(["majority"], []))


@pytest.mark.parametrize("form", ["lm-eval", "inspect", "datasets"])
def test_half_characters_in_a_manifest_can_be_exported(tmp_path: Path, run: Run, form: str) -> None:
    r"""Found by fuzzing: JSON may spell half a character (`\ud800`), which no file in UTF-8 can hold."""
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["spec"] |= {"model": "a\ud800b", "task_options": ["\udfff=\ud83d\ude00"]}
    manifest["engine"]["sampler"] = "\ud800"
    manifest["problems"]["\ud800"] = "\ud800"
    manifest.pop("sha256")
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    rows = pq.read_table(run.path / "problems.parquet").to_pylist()
    rows[0]["meta"] = '{"level": "\\ud800"}'
    pq.write_table(pa.Table.from_pylist(rows, schema=PROBLEMS), run.path / "problems.parquet")
    opened = open_run(run.path)
    assert opened.spec["model"] == "a\ufffdb"
    assert opened.spec["task_options"] == ["\ufffd=\U0001f600"]
    assert opened.problems()[0]["meta"] == {"level": "\ufffd"}
    assert export_run(opened, form, tmp_path / "out")
    opened.manifest["spec"]["model"] = "a\ud800b"
    opened.save()
    again = open_run(run.path)
    assert again.spec["model"] == "a\ufffdb"
    assert is_as_written(again)
