"""What the doctor finds in a stored run, and what is rebuilt of one that is damaged; damage is never read as data."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from crash_runs import Script, again, bench, failed, hasten, problems_with, quiet, stored
from fakes import FakeClock
from typer.testing import CliRunner

from harness.errors import UserError
from harness.storage.integrity import examine_run
from harness.storage.repairing import repair
from harness.storage.runs import Run, open_run

JUDGE = ("judge",)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script(FakeClock())
    hasten(monkeypatch.setattr, quiet, script)
    return script


@pytest.fixture
def run(tmp_path: Path, script: Script) -> Run:
    """A whole run, in parts of two completions."""
    return bench(tmp_path / "run", script, "latency", JUDGE)


def part(run: Run, kind: str, number: int) -> Path:
    (found,) = (run.path / kind).glob(f"{number:06d}-*.parquet")
    return found


def spoil(path: Path, place: int | None = None) -> None:
    """Flip a bit, in the middle of the file unless said otherwise."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 8
    path.write_bytes(content)


def findings(path: Path) -> dict[str, str]:
    return {finding.what: finding.detail for finding in examine_run(path) if not finding.ok}


def test_a_whole_run_is_in_order_and_its_parts_carry_their_digest(run: Run) -> None:
    assert findings(run.path) == {}
    for each in run.path.glob("*/*.parquet"):
        assert each.stem.partition("-")[2] == hashlib.sha256(each.read_bytes()).hexdigest()[:16]


@pytest.mark.parametrize("kind", ["completions", "verdicts", "scores"])
@pytest.mark.parametrize("place", [40, None, -30])
def test_a_flipped_bit_is_found_wherever_it_is(run: Run, kind: str, place: int | None) -> None:
    spoil(part(run, kind, 1), place)
    assert f"{kind}/000001-" in findings(run.path)["every part is as it was stored"]


def test_a_flipped_bit_in_a_page_is_never_read_as_data(run: Run) -> None:
    """Every byte of the pages: whoever reads the column gets what was stored, or a sentence."""
    path = part(run, "completions", 0)
    whole, kept = path.read_bytes(), run.completion_columns("text").to_pylist()
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for place in range(4, pages, 7):
        path.write_bytes(whole)
        spoil(path, place)
        try:
            found = run.completion_columns("text").to_pylist()
        except UserError:
            refused += 1
        else:
            assert found == kept, place
    assert refused > 5


def test_the_doctor_says_what_is_missing_doubled_and_left_over(run: Run, script: Script) -> None:
    part(run, "completions", 2).unlink()
    found = findings(run.path)
    assert found["no part is missing"] == "completions/000002"
    assert found["the verdicts are of completions that are there"] == "2 are not"
    assert found["every sample is there that was asked for"] == "2 missing"
    shutil.copy(part(run, "completions", 3), run.path / "completions" / "000002.parquet")
    (run.path / "scores" / ".000099.parquet.unfinished").write_bytes(b"PAR1")
    found = findings(run.path)
    assert found["no completion is stored twice"] == "15 rows, 13 samples"
    assert found["no part was left unfinished"] == "scores/.000099.parquet.unfinished"


@pytest.mark.parametrize("kind", ["completions", "verdicts", "scores"])
def test_a_part_that_vanished_from_the_end_is_missed(run: Run, kind: str) -> None:
    last = sorted((run.path / kind).iterdir())[-1]
    last.unlink()
    assert findings(run.path)["no part is missing"] == f"{kind}/{last.name[:6]}"


def test_a_manifest_and_problems_that_were_changed_are_noticed(run: Run) -> None:
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"created_unix_s": 1', '"created_unix_s": 2', 1))
    assert list(findings(run.path)) == ["the manifest is as it was written"]
    from harness.storage.records import PROBLEMS, write_table

    rows = [row | {"gold": "5", "meta": "{}"} for row in run.problems()]
    write_table(run.path / "problems.parquet", rows, PROBLEMS)
    assert "the problems are the manifest's" in findings(run.path)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_what_is_whole_is_rebuilt_elsewhere_and_gone_on_with(run: Run, script: Script, tmp_path: Path) -> None:
    before = stored(run.path)
    spoil(part(run, "completions", 1))
    part(run, "completions", 4).unlink()
    shutil.copy(part(run, "completions", 5), run.path / "completions" / "000077.parquet")
    spoil(part(run, "verdicts", 0))
    spoil(part(run, "scores", 2))
    old, out = tree(run.path), tmp_path / "rebuilt"
    told = repair(run.path, out)
    assert all(finding.ok for finding in told)
    assert tree(run.path) == old
    rebuilt = open_run(out)
    assert stored(out) < before
    assert len(rebuilt.completions()) == len(rebuilt.completion_columns("seed")) == 11
    assert rebuilt.manifest["validity"]["verdict"] == "INVALID"
    assert set(findings(out)) == {"every sample is there that was asked for", "every completion is graded", "verdict"}
    # What was lost is sampled again, by a later sitting and from the same seeds.
    whole = again(out, script, "latency", JUDGE)
    assert problems_with(whole, judges=False) == []
    assert {row[:2] + row[3:] for row in stored(out)} == {row[:2] + row[3:] for row in before}


def test_a_repair_touches_nothing_and_refuses_folders_in_use(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not in or around it"):
        repair(run.path, run.path / "inside")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is in use"):
        repair(run.path, tmp_path / "used")
    spoil(run.path / "problems.parquet")
    with pytest.raises(UserError, match=r"problems.parquet"):
        repair(run.path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_verdicts_of_completions_that_are_gone_are_not_taken_for_those_of_new_ones(run: Run, script: Script) -> None:
    part(run, "completions", 3).unlink()
    with pytest.raises(UserError, match=r"has verdicts of 2 completions that are not there.*--repair DIR"):
        again(run.path, script, "latency", JUDGE)


def test_a_torn_part_is_set_aside_with_a_sentence(
    tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench(tmp_path / "run", script, "latency", ())
    torn = part(run, "verdicts", 1)
    torn.write_bytes(bytes(len(torn.read_bytes())))
    whole = again(run.path, script, "latency", ())
    assert f"verdicts/{torn.name}' is torn" in capsys.readouterr().err
    assert (run.path / "set_aside" / f"verdicts-{torn.name}").is_file()
    assert problems_with(whole, judges=False) == []
    assert failed(run.path) == []


def test_records_of_another_version_are_refused_by_name(run: Run, script: Script) -> None:
    import pyarrow.parquet as pq

    path = part(run, "completions", 0)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"ttc_schema": b"0"}), path)
    with pytest.raises(UserError, match="has schema version 0; this program reads version 1"):
        run.completions()
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 0', 1))
    with pytest.raises(UserError, match="is a manifest of schema 0, written by another version"):
        open_run(run.path)


def test_the_command_verifies_and_repairs(run: Run, tmp_path: Path) -> None:
    from harness.cli import app

    ttc = CliRunner()
    told = ttc.invoke(app, ["doctor", str(run.path), "--json"])
    assert told.exit_code == 0
    assert all(finding["ok"] for finding in json.loads(told.stdout))
    spoil(part(run, "scores", 0))
    told = ttc.invoke(app, ["doctor", str(run.path)])
    assert told.exit_code == 1
    assert "FAIL every part is as it was stored: " in told.stdout
    told = ttc.invoke(app, ["doctor", str(run.path), "--repair", str(tmp_path / "new"), "--json"])
    assert told.exit_code == 0
    assert json.loads(told.stdout)[0]["what"] == f"rebuilt as '{tmp_path / 'new'}'"
    assert findings(tmp_path / "new").keys() == {"verdict"}
