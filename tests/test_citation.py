"""CITATION.cff: what tools that cite software require of it, and that it is of this version."""

from pathlib import Path
from typing import Any

import yaml

from harness import __version__

FILE = Path(__file__).resolve().parents[1] / "CITATION.cff"


def test_it_says_who_what_and_which_version() -> None:
    cited: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys(), "what the format requires"
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert cited["license"] == "Apache-2.0"
    assert str(cited["version"]) == __version__
    assert cited["authors"] == [{"name": "The ttc authors"}]


def test_it_refers_to_the_paper() -> None:
    (paper,) = yaml.safe_load(FILE.read_text(encoding="utf-8"))["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == [
        "Paliotta", "Wang", "Pagliardini", "Li", "Bick", "Kolter", "Gu", "Fleuret", "Dao",
    ]  # fmt: skip
    assert paper["identifiers"][0]["value"] == "arXiv:2502.20339"
