"""Logs of Inspect, `.eval` (a zip of JSON files) and `.json`: a sample is a problem, an epoch a completion of it."""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.interchange.reading import plain_text, read_object
from harness.lines import LONGEST_LINE, read_bounded, read_upto

ZSTANDARD = 93
"""The method by which Inspect compresses since 2025; Python reads it from 3.14 on."""
VERDICTS = {"C": True, "I": False, "correct": True, "incorrect": False, 1: True, 0: False}
FINISHES = {"max_tokens": "length", "model_length": "length", "content_filter": "error"}
LARGEST_LOG = 1 << 30
"""Bytes of a log that is one JSON document."""
REFERENCE = "attachment://"
OWN = "ttc"
"""Where our own export keeps what Inspect has no place for."""


def is_log(file: Path, head: bytes) -> bool:
    """Whether a JSON file begins like a log of Inspect."""
    return file.suffix == ".json" and all(name in head for name in (b'"eval"', b'"status"', b'"version"'))


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every sample of the log. Raises UserError when it has none or cannot be read."""
    some = False
    for where, sample in samples_in(file):
        some = True
        yield where, row_of(where, sample)
    if not some:
        raise UserError(f"'{file}' is a log without samples; log them with Inspect's --log-samples")


def samples_in(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The samples as they are stored, one at a time where the log is a zip."""
    try:
        if not zipfile.is_zipfile(file):
            with file.open("rb") as opened:
                log = read_object(str(file), read_bounded(file, opened, LARGEST_LOG))
            listed = log.get("samples")
            for number, sample in enumerate(listed if isinstance(listed, list) else [], 1):
                yield f"{file}, sample {number}", sample
            return
        with zipfile.ZipFile(file) as log_file:
            for info in log_file.infolist():
                if info.filename.startswith("samples/") and info.filename.endswith(".json"):
                    where = f"{file}, {info.filename}"
                    yield where, read_object(where, read_member(log_file, info))
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        # A member that wants a password, or a method that is not known, is a RuntimeError.
        raise UserError(f"'{file}' cannot be read as a log of Inspect ({error})") from None


def read_member(log_file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """One file of the zip, also where it is compressed by a method that Python's own module does not know."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, ZSTANDARD):
        # The others take as much memory as a file says they need.
        raise NotImplementedError(f"compression method {info.compress_type}")
    if info.compress_type != ZSTANDARD:
        with log_file.open(info) as member:
            return read_bounded(Path(info.filename), member)
    import pyarrow as pa

    raw = log_file.fp
    if raw is None:
        raise zipfile.BadZipFile("closed")
    raw.seek(info.header_offset + 26)
    lengths = raw.read(4)
    raw.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), 1)
    packed = read_upto(raw, min(info.compress_size, LONGEST_LINE))
    with pa.input_stream(pa.py_buffer(packed), compression="zstd") as stream:
        return read_bounded(Path(info.filename), stream)


def row_of(where: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    """One sample in our own form."""
    if not isinstance(sample, Mapping) or "id" not in sample or not isinstance(sample.get("output"), Mapping):
        raise UserError(f"{where}: wants a sample with id, epoch, target and output")
    output = sample["output"]
    choices, epoch = output.get("choices"), sample.get("epoch", 1)
    choice = table(choices[0]) if isinstance(choices, list) and choices else {}
    usage = table(output.get("usage"))
    correct = verdict_of(sample)
    row: dict[str, Any] = {
        "problem_id": str(sample["id"]),
        "sample_index": epoch - 1 if isinstance(epoch, int) else epoch,
        "gold": target_of(where, sample, correct),
        "prompt": resolved(plain_text(sample.get("input")), sample),
        "text": answer_text(choice, output, sample),
        "finish_reason": "error" if sample.get("error") else FINISHES.get(str(choice.get("stop_reason")), "stop"),
        "prompt_tokens": usage.get("input_tokens") or 0,
        "completion_tokens": usage.get("output_tokens") or 0,
    }
    own = table(sample.get("metadata")).get(OWN)
    if isinstance(own, dict):
        return row | own
    return row if correct is None else row | {"correct": correct}


def table(value: Any) -> Mapping[str, Any]:
    """A table, empty where the log has something else in its place."""
    return value if isinstance(value, Mapping) else {}


def target_of(where: str, sample: Mapping[str, Any], correct: bool | None) -> str:
    """The target; of several the first where the verdict is recorded. Raises UserError where it is not."""
    target = sample.get("target", "")
    if not isinstance(target, list):
        return str(target)
    if len(target) > 1 and correct is None:
        raise UserError(f"{where}: has {len(target)} targets and no score; one target can be graded against")
    return str(target[0]) if target else ""


def answer_text(choice: Mapping[str, Any], output: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """What the model wrote, its reasoning before its answer."""
    content = table(choice.get("message")).get("content", output.get("completion") or "")
    if not isinstance(content, list):
        return resolved(str(content), sample)
    text = ""
    for part in content:
        if isinstance(part, Mapping) and part.get("type") == "reasoning":
            text += f"<think>{resolved(str(part.get('reasoning') or ''), sample)}</think>"
        else:
            text += resolved(plain_text(part), sample)
    return text


def resolved(text: str, sample: Mapping[str, Any]) -> str:
    """A text that the log keeps apart, or the text itself."""
    if not text.startswith(REFERENCE):
        return text
    return str(table(sample.get("attachments")).get(text.removeprefix(REFERENCE), text))


def verdict_of(sample: Mapping[str, Any]) -> bool | None:
    """What the first scorer that says right or wrong says, None where none does."""
    scores = sample.get("scores")
    for score in scores.values() if isinstance(scores, Mapping) else ():
        value = score.get("value") if isinstance(score, Mapping) else None
        if isinstance(value, str | int | float) and value in VERDICTS:
            return VERDICTS[value]
    return None
