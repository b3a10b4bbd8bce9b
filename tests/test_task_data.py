import gzip
import json
import tarfile
from io import BytesIO
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from harness.errors import UserError
from harness.tasks.data import Hub, plain_number, read_rows, with_distinct_ids
from harness.tasks.gsm8k import gsm8k
from harness.tasks.math_ import math
from harness.tasks.olympiadbench import olympiadbench

HUB = Hub("owner/name", "test")
RECORDS = [{"question": "1 + 1?", "answer": "line\u2028break", "n": 2}, {"question": 'é, "q"', "answer": "b", "n": 3}]


def lines(records: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def parquet(records: list[dict[str, object]]) -> bytes:
    buffer = BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", lines(RECORDS)),
        ("rows.jsonl", b"\xef\xbb\xbf" + lines(RECORDS[:1]) + b"\n  \n" + lines(RECORDS[1:])),
        ("rows.json", json.dumps(RECORDS, indent=2).encode()),
        ("rows.json", lines(RECORDS)),
        ("rows.parquet", parquet(RECORDS)),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: bytes, packed: bool) -> None:
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    rows = read_rows(str(path), HUB)
    assert [dict(row.fields) for row in rows] == RECORDS
    assert [row.index for row in rows] == [0, 1]


def test_csv_cells_may_hold_commas_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('question,answer,note\n"a, b","two\nlines",\nc,3,"x"\n', encoding="utf-8")
    rows = read_rows(str(path), HUB)
    assert [row.fields for row in rows] == [
        {"question": "a, b", "answer": "two\nlines", "note": None},
        {"question": "c", "answer": "3", "note": "x"},
    ]
    with pytest.raises(UserError, match="line 3: no field 'note'; this row has answer, note, question"):
        rows[0].text("note")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"question": "q", "answer": "#### 1"}\n{"question": "q"\n', "line 2: not JSON .* column"),
        ("a.jsonl", b'{"question": "q", "answer": "#### 1"}\n\n[1, 2]\n', r"line 3: wanted a JSON object .* \[1, 2\]"),
        ("a.jsonl", b'{"question": "q\xff"}\n', "line 1: not readable as JSON in UTF-8"),
        ("a.jsonl", b"[" * 100_000, "line 1: not readable as JSON"),
        ("a.jsonl", b'{"frage": "q", "answer": "#### 1"}\n', "line 1: no field 'question'; this row has answer, frage"),
        ("a.jsonl", b'{"question": null, "answer": "#### 1"}\n', "line 1: no field 'question'"),
        ("a.jsonl", b'{"question": 7, "answer": "#### 1"}\n', "line 1: field 'question' must be a text, not 7"),
        ("a.jsonl", b'{"question": "  ", "answer": "#### 1"}\n', "line 1: field 'question' must be a text, not '  '"),
        (
            "a.jsonl",
            b'{"question": "q", "answer": "just 3"}\n',
            "line 1: field 'answer' must end in a line '#### NUMBER'",
        ),
        ("a.json", b'[{"question": "q"}, 5]', "entry 2: wanted a JSON object"),
        ("a.json", b'[{"question": "q"', "a.json: not JSON"),
        ("a.json", b"[]", "no rows in it"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl.gz", gzip.compress(b"\n \n"), "the file is empty"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 1000)[:20], "cannot be read"),
        ("a.csv", b"question,answer\nq\n", "line 2: not as many cells as the header"),
        ("a.csv", b"question,answer\nq,#### 1,x\n", "line 2: not as many cells as the header"),
        ("a.csv", b'question,answer\nq,"#### 1\n', "not CSV"),
        ("a.csv", b"question,answer\nq\xff,1\n", "not UTF-8"),
        ("a.csv", b"question,answer\n", "no rows in it"),
        ("a.parquet", b"PAR1 but not really", "not a readable Parquet file"),
        ("a.txt", b"q", r"cannot tell the format from the name; data files are \.jsonl"),
    ],
)
def test_bad_files_end_in_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        gsm8k(data=str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data file .*nowhere\.jsonl"):
        gsm8k(data=str(tmp_path / "nowhere.jsonl"))
    (tmp_path / "train.jsonl.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"is a folder; give a data file in it .*train\.jsonl\.gz"):
        gsm8k(data=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("27.0", "27"),
        ("025", "25"),
        ("000", "0"),
        ("1,234,567", "1234567"),
        ("-1,234.50", "-1234.5"),
        ("+7", "7"),
        ("-0.0", "0"),
        ("1e3", "1000"),
        ("2.5E-3", "0.0025"),
        (" 3. ", "3"),
        ("1200", "1200"),
    ],
)
def test_plain_number(text: str, spelled: str) -> None:
    assert plain_number(text) == spelled


@pytest.mark.parametrize("text", ["", "1,2", "1_000", "nan", "inf", "1e999999999", "3/4", "two", "True", "1 2", "."])
def test_no_plain_number(text: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        plain_number(text)


def test_two_problems_with_one_id_are_refused(tmp_path: Path) -> None:
    problem = gsm8k(data=str(Path(__file__).parent / "data" / "tasks" / "gsm8k.jsonl")).problems[0]
    with pytest.raises(UserError, match="two rows of the data have the id 'gsm8k/test/0'"):
        with_distinct_ids([problem, problem])


def test_a_hub_that_cannot_be_reached_asks_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(name: str, config: str | None, split: str) -> None:
        raise ConnectionError(f"no route to {name} {config} {split}\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"openai/gsm8k .*no route to openai/gsm8k main train.*--data FILE") as caught:
        len(gsm8k(split="train").problems)
    assert "\n" not in str(caught.value)


def test_rows_of_the_hub_are_read_like_those_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def fake(name: str, config: str | None, split: str) -> list[dict[str, str]]:
        asked.append((name, config, split))
        row = {"problem": f"What is the area of a {config}?", "level": "Level 4", "type": "Number Theory"}
        return [{**row, "solution": r"It is $\boxed{4}$."}, {**row, "solution": r"It is $\boxed{5}$."}]

    monkeypatch.setattr(datasets, "load_dataset", fake)
    task = math(split="train")
    assert asked == []  # nothing is fetched before somebody looks
    assert len(task.problems) == 14
    assert [config for _, config, _ in asked] == [
        "algebra",
        "counting_and_probability",
        "geometry",
        "intermediate_algebra",
        "number_theory",
        "prealgebra",
        "precalculus",
    ]
    assert {(name, split) for name, _, split in asked} == {("EleutherAI/hendrycks_math", "train")}
    assert [problem.id for problem in task.problems[:3]] == [
        "math/train/algebra/0",
        "math/train/algebra/1",
        "math/train/counting_and_probability/0",
    ]
    assert [problem.gold for problem in task.problems[:2]] == ["4", "5"]


ORIGINAL = {"problem": "What is $2 + 3$?", "level": "Level 2", "type": "Algebra", "solution": r"It is $\boxed{5}$."}


def original_folder(root: Path) -> Path:
    for name in ("test/algebra/10.json", "test/algebra/9.json", "train/algebra/1.json", "test/geometry/2.json"):
        path = root / "MATH" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**ORIGINAL, "problem": f"What is $2 + 3$ in {name}?"}))
    (root / "MATH" / "README.txt").write_text("no problem")
    return root / "MATH"


def test_original_layout_of_math_as_folder_and_archive(tmp_path: Path) -> None:
    folder = original_folder(tmp_path)
    with tarfile.open(tmp_path / "MATH.tar.gz", "w:gz") as archive:
        archive.add(folder, "MATH")
    expected = ["math/test/algebra/9.json", "math/test/algebra/10.json", "math/test/geometry/2.json"]
    for data in (folder, tmp_path, tmp_path / "MATH.tar.gz"):
        assert [problem.id for problem in math(data=str(data)).problems] == expected
        assert len(math(data=str(data), split="train").problems) == 1


def test_an_archive_reaches_nothing_outside_itself(tmp_path: Path) -> None:
    content = json.dumps(ORIGINAL).encode()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "1.json").write_bytes(content)
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        for name in ("../../escaped/test/algebra/1.json", "/etc/test/algebra/2.json"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
        for kind, number in ((tarfile.SYMTYPE, 3), (tarfile.LNKTYPE, 4), (tarfile.FIFOTYPE, 5)):
            link = tarfile.TarInfo(f"test/algebra/{number}.json")
            link.type, link.linkname = kind, str(tmp_path / "secret" / "1.json")
            archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    task = math(data=str(tmp_path / "evil.tar.gz"))
    assert [problem.id for problem in task.problems] == ["math/test/algebra/1.json", "math/test/algebra/2.json"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content", [b"", b"not an archive", gzip.compress(b"nor this"), gzip.compress(b"x" * 5000)[:30]]
)
def test_damaged_archives_end_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "MATH.tar.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"MATH\.tar\.gz: not a readable tar archive"):
        math(data=str(path))
    with pytest.raises(UserError, match=r"no data file"):
        math(data=str(tmp_path / "none.tar.gz"))


def test_a_problem_of_a_megabyte_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("MATH/test/algebra/1.json")
    member.size = 1_000_001
    with tarfile.open(tmp_path / "MATH.tgz", "w:gz") as archive:
        archive.addfile(member, BytesIO(b" " * member.size))
    with pytest.raises(UserError, match=r"MATH/test/algebra/1\.json: 1000001 bytes are too many"):
        math(data=str(tmp_path / "MATH.tgz"))


def test_a_folder_without_problems(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no problem at test/SUBJECT/NUMBER\.json"):
        math(data=str(tmp_path))


def test_a_bad_file_in_the_original_layout_is_named(tmp_path: Path) -> None:
    folder = original_folder(tmp_path)
    (folder / "test/geometry/2.json").write_text('{"problem": "p", "solution": "no box", "level": "Level 1"}')
    with pytest.raises(UserError, match=r"test/geometry/2\.json: field 'solution' has no .boxed"):
        math(data=str(folder))
    (folder / "test/geometry/2.json").write_text("{")
    with pytest.raises(UserError, match=r"test/geometry/2\.json: not JSON"):
        math(data=str(folder))


def test_a_field_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": 1, "question": "q", "final_answer": [3], "answer_type": "Numerical"}))
    with pytest.raises(UserError, match=r"line 1: field 'final_answer' must be a list of texts, not \[3\]"):
        olympiadbench(data=str(path))
