import io
import sys

import pytest
from fakes import FakeClock

from harness.progress import Bar, Lines, Quiet, chooser


def test_plain_lines_come_now_and_then_and_at_the_end_once() -> None:
    clock, out = FakeClock(), io.StringIO()
    with Lines("sampling m", 3, out, clock) as progress:
        progress.update(1, "early")
        clock.sleep(11)
        progress.update(2, "2s left")
        progress.update(3, "done")
        progress.update(3, "done again")
    assert out.getvalue() == "sampling m: 2/3 2s left\nsampling m: 3/3 done\n"


def test_the_display_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(chooser(True)("t", 1), Quiet)
    assert isinstance(chooser(False)("t", 1), Lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(chooser(False)("t", 1), Bar)


def test_the_bar_shows_count_and_note_as_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("sampling [red]m", 4) as bar:
        bar.update(2, "3s left · 50% [b]correct")
    shown = capsys.readouterr().err
    assert "sampling [red]m" in shown
    assert "3s left · 50% [b]correct" in shown
    assert "2/4" in shown
