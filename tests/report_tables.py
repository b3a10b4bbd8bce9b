"""A made-up timing table: steps that take a fixed time and a time per row, and a bound below both."""

from harness.timing.timing_tables import Cell, TimingTable


def timing_table(model: str, share: float = 1.0) -> TimingTable:
    cells = []
    for batch in (1, 4, 16, 64, 256):
        for context in (512, 1024):
            seconds = share * (0.006 + 0.0002 * batch * context / 512)
            cells.append(
                Cell("decode", batch, context, seconds, 0.97 * seconds, 1.05 * seconds, 16, 5, 1e9, 1e9, seconds / 2)
            )
    return TimingTable(tuple(cells), {"model": model, "engine": {"engine": "native"}})
