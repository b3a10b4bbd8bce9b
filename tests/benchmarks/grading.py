"""Grading beside Math-Verify 0.9.0: errors of both kinds on the labelled pairs, and answers per second on one core.

    python tests/benchmarks/grading.py [--data FOLDER]

FOLDER holds gsm8k_example_model_solutions/ as published; without it only the labelled pairs are used. The last line of
stdout is one JSON document.
"""

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness.budgets import monotonic
from harness.tasks.grading import extract_number, grade, group, memo
from harness.tasks.grading.reader import read
from harness.tasks.grading.scalars import exact_form, float_value

PAIRS = Path(__file__).parents[1] / "data" / "grading_pairs.jsonl"
Pair = tuple[str, str]
Judge = Callable[[str, str], bool]


def labelled() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]


def ours(gold: str, answer: str) -> bool:
    return grade(gold, answer).outcome == "correct"


def math_verify() -> Judge:
    """Math-Verify as its README uses it: between dollars, and as it stands where nothing is found so."""
    from math_verify import parse, verify

    def judge(gold: str, answer: str) -> bool:
        sides = [parse(dollars(text)) or parse(text) for text in (gold, answer)]
        return bool(verify(*sides))

    return judge


def dollars(text: str) -> str:
    return text if text.startswith("$") and text.endswith("$") else f"${text}$"


def forget() -> None:
    """Empty every memo, so that the next answer is graded from its text."""
    memo.easy.clear()
    memo.hard.clear()
    for cache in (read, exact_form, float_value):
        cache.cache_clear()


def errors(judge: Judge) -> dict[str, list[int]]:
    """Per kind: equal pairs refused, unequal pairs accepted, pairs."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for pair in labelled():
        count = counts[pair["kind"]]
        accepted = judge(pair["gold"], pair["answer"])
        count[0] += pair["equal"] and not accepted
        count[1] += accepted and not pair["equal"]
        count[2] += 1
    return counts


def per_second(judge: Judge, pairs: Iterable[Pair], clear: Callable[[], None] = lambda: None) -> float:
    """Answers a second, with `clear` outside the time."""
    total, spent = 0, 0.0
    for gold, answer in pairs:
        clear()
        start = monotonic()
        judge(gold, answer)
        spent += monotonic() - start
        total += 1
    return total / spent


def gsm8k_pairs(data: Path) -> list[Pair]:
    """Every answer that can be extracted from the GSM8K example solutions, with its gold answer."""
    pairs = []
    with gzip.open(data / "gsm8k_example_model_solutions" / "example_model_solutions.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            gold = row["ground_truth"].rsplit("A:", 1)[-1].strip()
            for system in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
                if answer := extract_number(row[system]["solution"]):
                    pairs.append((gold, answer))
    return pairs


def speeds(pairs: list[Pair], sample: int) -> dict[str, float]:
    """Answers a second of both systems on the same evenly spaced pairs, without and with our memo."""
    chosen = pairs[:: max(1, len(pairs) // sample)]
    theirs = math_verify()
    theirs(*chosen[0])
    for gold, answer in chosen[:50]:
        ours(gold, answer)
    without = per_second(ours, chosen, forget)
    for gold, answer in chosen:
        ours(gold, answer)
    return {
        "pairs": len(chosen),
        "ours": without,
        "ours_memo": per_second(ours, chosen),
        "math_verify": per_second(theirs, chosen),
    }


def voting(problems: int = 500, answers: int = 256) -> float:
    """Seconds to group so many answers of so many problems: a few right forms and many different wrong answers."""
    golds = sorted({pair["gold"] for pair in labelled()})
    batches = []
    for index in range(problems):
        gold = golds[index % len(golds)]
        forms = [pair["answer"] for pair in labelled_by_gold()[gold]] + [str(1000 + n * 7) for n in range(20)]
        batches.append([gold if n % 3 else forms[n * (index + 1) % len(forms)] for n in range(answers)])
    forget()
    start = monotonic()
    for batch in batches:
        group(batch)
    return monotonic() - start


_by_gold: dict[str, list[dict[str, Any]]] = defaultdict(list)


def labelled_by_gold() -> dict[str, list[dict[str, Any]]]:
    if not _by_gold:
        for pair in labelled():
            _by_gold[pair["gold"]].append(pair)
    return _by_gold


def print_errors(mine: dict[str, list[int]], theirs: dict[str, list[int]]) -> None:
    print(f"{'kind':22}{'pairs':>6}   ours: refused accepted   Math-Verify: refused accepted")
    for kind in mine:
        print(f"{kind:22}{mine[kind][2]:6}{mine[kind][0]:16}{mine[kind][1]:9}{theirs[kind][0]:23}{theirs[kind][1]:9}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Grading beside Math-Verify 0.9.0.")
    parser.add_argument("--data", type=Path, help="the folder with the GSM8K example solutions")
    parser.add_argument("--sample", type=int, default=400, help="pairs for the speed of both systems")
    options = parser.parse_args()
    mine, theirs = errors(ours), errors(math_verify())
    print_errors(mine, theirs)
    document: dict[str, Any] = {
        "errors": {
            name: [sum(count[side] for count in counts.values()) for side in (0, 1, 2)]
            for name, counts in (("ours", mine), ("math_verify", theirs))
        },
        "kinds_worse": [kind for kind in mine if sum(mine[kind][:2]) > sum(theirs[kind][:2])],
    }
    document["speed_rewritten"] = speeds([(pair["gold"], pair["answer"]) for pair in labelled()], options.sample)
    if options.data:
        document["speed_gsm8k"] = speeds(gsm8k_pairs(options.data), options.sample)
    document["group_500x256_s"] = voting()
    print(json.dumps(document))


if __name__ == "__main__":
    main()
