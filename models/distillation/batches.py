"""Batches of documents: which texts stand in which rows; the same for a seed and a number however one came there.

Two ways to fill a row of `context` tokens. Unpacked, a row is one text, cut to `context`; the texts of a few batches
are drawn together and dealt out by length, so that little is padded. Packed, a row is filled with texts one after
another and the last is cut at its end; every row begins with the beginning of a text and nothing is padded.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from harness.errors import UserError

from .documents import IGNORED, Document, in_turn, open_examples, tokenise
from .recipes import Stage

WINDOW = 8
"""How many unpacked batches are dealt out of one drawing."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded on the right, on one device.

    `token_ids` (b, L) int64; `labels` (b, L) int64, the token itself where it is to be learnt and -100 elsewhere, so
    that logits at t are held against labels at t + 1; `lengths` (b,) int64.
    """

    token_ids: Tensor
    labels: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(self.token_ids.to(device), self.labels.to(device), self.lengths.to(device))


class TrainingBatch(Protocol):
    """What an objective takes; `lengths` (b,) are the real tokens of each row of `token_ids` (b, L)."""

    @property
    def token_ids(self) -> Tensor:
        """Token ids, padded on the right."""
        ...

    @property
    def lengths(self) -> Tensor:
        """True lengths."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        ...


class NumberedBatches(Protocol):
    """Batches that depend on their number and a seed alone; process r of n takes numbers r, r + n, ..."""

    def batch(self, number: int, /) -> TrainingBatch:
        """The batch of a number from 0."""
        ...


class Batches:
    """The batches of a stage, by number; of `processes`, each takes the numbers that leave its own remainder.

    Args:
        document: the document of any number, at most `context` tokens long.
        rows: per batch.
        context: tokens per row at most; exactly, when packed.
        packed: fill rows with several texts.
        seed: of the order in which batches of different lengths come.
        processes: batches n, n + processes, n + 2 processes ... share no document with the others.
    """

    def __init__(
        self,
        document: Callable[[int], Document],
        rows: int,
        context: int,
        packed: bool,
        seed: int,
        processes: int = 1,
    ) -> None:
        self.document = document
        self.rows, self.context, self.packed = rows, context, packed
        self.seed, self.processes = seed, processes
        self.starts = {number: number for number in range(processes)}
        self.barren = 0
        self.window: tuple[tuple[int, int], list[list[Document]]] = ((-1, -1), [])

    def batch(self, number: int) -> Batch:
        """The batch of a number from 0. Raises UserError when one after another has nothing to learn in it."""
        rows = self.packed_rows(number) if self.packed else self.unpacked_rows(number)
        self.barren = self.barren + 1 if all(set(row.labels) == {IGNORED} for row in rows) else 0
        if self.barren == WINDOW:
            raise UserError(
                f"none of {WINDOW * self.rows} texts has anything to learn within {self.context} tokens, because their "
                "prompts are longer; raise the stage's context"
            )
        return collate(rows)

    def unpacked_rows(self, number: int) -> list[Document]:
        """Rows of one text each."""
        turn, process = divmod(number, self.processes)
        window, place = divmod(turn, WINDOW)
        if self.window[0] != (window, process):
            self.window = (window, process), self.deal(window, process)
        return self.window[1][place]

    def position(self, number: int) -> int:
        """Where a batch that was asked for, or is next, begins; to be handed to `go_to` by a later sitting."""
        return self.starts.get(number, 0)

    def go_to(self, number: int, position: int) -> None:
        """Know where a batch begins. Without it the batches before are made again, to the same effect."""
        if self.packed:
            self.starts[number] = position

    def deal(self, window: int, process: int) -> list[list[Document]]:
        """The batches of one window: rows of like length together, in random order."""
        size = WINDOW * self.rows
        drawn = [self.document(process + self.processes * place) for place in range(window * size, (window + 1) * size)]
        drawn.sort(key=lambda document: len(document.token_ids))
        dealt = [drawn[start : start + self.rows] for start in range(0, size, self.rows)]
        random.Random(f"{self.seed}/{window}/{process}").shuffle(dealt)
        return dealt

    def packed_rows(self, number: int) -> list[Document]:
        """Rows of exactly `context` tokens; notes where the process's next batch begins."""
        known = number
        while known not in self.starts:
            known -= self.processes
        for before in range(known, number, self.processes):
            self.packed_rows(before)
        place, rows = self.starts[number], []
        for _ in range(self.rows):
            token_ids: list[int] = []
            labels: list[int] = []
            while len(token_ids) < self.context:
                document = self.document(place)
                token_ids += document.token_ids
                labels += document.labels
                place += self.processes
            rows.append(Document(token_ids[: self.context], labels[: self.context]))
        self.starts[number + self.processes] = place
        return rows


def open_batches(stage: Stage, tokenizer: Any, seed: int, processes: int = 1) -> Batches:
    """The batches of a stage that learns from texts.

    Raises UserError when its source does not exist or is empty, or the tokenizer has no end token.
    """
    sources = (stage.data.source, *stage.data.mixed_with)
    examples = in_turn([open_examples(source, stage.data.split, seed) for source in sources])
    learns_prompt = stage.data.loss_on == "all"

    def document(number: int) -> Document:
        return tokenise(examples(number), tokenizer, stage.context, learns_prompt)

    return Batches(document, stage.rows, stage.context, stage.data.packed, seed, processes)


def collate(rows: Sequence[Document]) -> Batch:
    """Tensors of the rows, padded on the right to the longest with token 0, which no label points at."""
    lengths = [len(row.token_ids) for row in rows]
    longest = max(lengths)
    token_ids = [row.token_ids + [0] * (longest - len(row.token_ids)) for row in rows]
    labels = [row.labels + [IGNORED] * (longest - len(row.labels)) for row in rows]
    return Batch(torch.tensor(token_ids), torch.tensor(labels), torch.tensor(lengths))


@contextmanager
def read_ahead(batches: NumberedBatches, numbers: Sequence[int]) -> Iterator[Iterator[tuple[int, TrainingBatch]]]:
    """The batches of these numbers with their numbers, each made while the one before is trained on."""
    with ThreadPoolExecutor(1) as pool:

        def read() -> Iterator[tuple[int, TrainingBatch]]:
            waiting = [pool.submit(batches.batch, number) for number in numbers[:1]]
            for place, number in enumerate(numbers, 1):
                batch = waiting.pop().result()
                waiting += [pool.submit(batches.batch, following) for following in numbers[place : place + 1]]
                yield number, batch

        yield read()
