r"""Make the labelled pairs `tests/data/grading_pairs.jsonl`: gold answers rewritten into equal and nearly equal forms.

The labels come from the rewriting, never from a grader: every rewriting below is a small identity, or a small change
that breaks it. The golds are drawn with a fixed seed from GSM8K and MATH (both MIT) where a kind occurs there.

    python tests/benchmarks/make_grading_pairs.py --data FOLDER

FOLDER holds gsm8k/test.jsonl.gz and math/test.jsonl.gz. Each line is {"kind", "gold", "answer", "equal"}.
"""

import argparse
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

Rewritten = Iterator[tuple[str, bool]]
PAIRS = Path(__file__).parents[1] / "data" / "grading_pairs.jsonl"
PER_KIND = 8


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def golds(data: Path) -> list[str]:
    """The gold answers of both data sets, each once, in the order of the files."""
    gsm8k = [row["answer"].rsplit("####", 1)[1].strip() for row in rows(data / "gsm8k" / "test.jsonl.gz")]
    math = []
    for row in rows(data / "math" / "test.jsonl.gz"):
        start = row["solution"].rfind(r"\boxed{") + 7
        depth, end = 1, start
        while depth and end < len(row["solution"]):
            depth += {"{": 1, "}": -1}.get(row["solution"][end], 0)
            end += 1
        math.append(row["solution"][start : end - 1].strip())
    return list(dict.fromkeys([*gsm8k, *math]))


def tex(value: Fraction, macro: str = r"\frac") -> str:
    sign = "-" if value < 0 else ""
    if value.denominator == 1:
        return str(value)
    return f"{sign}{macro}{{{abs(value.numerator)}}}{{{value.denominator}}}"


def integer(gold: str) -> Rewritten:
    n = int(gold.replace(",", ""))
    yield f"{n:,}", True
    yield f"{n:,}".replace(",", "{,}"), True
    yield f"{n:,}".replace(",", r",\!"), True
    yield f"{n}.0", True
    yield f"${n}$.", True
    yield rf"\frac{{{3 * n}}}{{3}}", True
    yield rf"{n - 7} + 7", True
    yield str(n + 1), False
    yield str(n - 1), False
    yield str(-n), n == 0
    yield f"{n}0", n == 0
    yield f"{n}.5", False
    yield rf"\frac{{{n}}}{{{2}}}", n == 0


def huge_integer(gold: str) -> Rewritten:
    n = int(gold)
    yield str(n + 1), False
    yield str(n + 10**9), False
    yield f"{n:,}", True
    yield str(n)[::-1], str(n) == str(n)[::-1]
    yield rf"{n - 1} + 1", True


def decimal(gold: str) -> Rewritten:
    value = Fraction(gold)
    yield gold + "0", True
    yield tex(value), True
    yield f"{value.numerator}/{value.denominator}", True
    yield gold.lstrip("0") if gold.startswith("0.") else "0" + gold, True
    yield f"${gold}$", True
    yield f"{float(value * 10):.10g}", False
    yield gold + "1", False
    yield str(round(float(value) + 0.01, 10)), False
    yield f"-{gold}", False
    yield gold.replace(".", ""), False


def fraction(gold: str) -> Rewritten:
    value = fraction_of(gold)
    a, b = value.numerator, value.denominator
    yield tex(value, r"\dfrac"), True
    yield tex(value, r"\tfrac"), True
    yield f"{a}/{b}", True
    yield rf"\frac{{{2 * a}}}{{{2 * b}}}", True
    yield rf"\frac{{{-a}}}{{{-b}}}", True
    yield rf"{a} \cdot \frac{{1}}{{{b}}}", True
    yield rf"\left(\frac{{{a}}}{{{b}}}\right)", True
    yield tex(1 / value), a * a == b * b
    yield tex(value + Fraction(1, b)), False
    yield tex(-value), False
    yield rf"\frac{{{a}}}{{{b + 1}}}", False
    yield str(a), False
    yield f"{float(value):.3f}"[:4], Fraction(f"{float(value):.3f}"[:4]) == value


def fraction_of(gold: str) -> Fraction:
    sign, top, bottom = re.fullmatch(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}", gold).groups()  # type: ignore[union-attr]
    return Fraction(int(sign + top), int(bottom))


def mixed_number(gold: str) -> Rewritten:
    value = abs(fraction_of(gold)) + 2
    whole, rest = divmod(value, 1)
    if rest == 0:
        return
    yield rf"{whole}\frac{{{rest.numerator}}}{{{rest.denominator}}}", True
    yield rf"{whole} \frac{{{rest.numerator}}}{{{rest.denominator}}}", True
    yield f"{whole} {rest.numerator}/{rest.denominator}", True
    yield rf"{whole} + \frac{{{rest.numerator}}}{{{rest.denominator}}}", True
    yield rf"{whole - 1}\frac{{{rest.numerator}}}{{{rest.denominator}}}", False
    yield rf"{whole} \cdot \frac{{{rest.numerator}}}{{{rest.denominator}}}", whole * rest == value


def percentage(gold: str) -> Rewritten:
    value = Fraction(gold.removesuffix(r"\%"))
    yield f"{float(value):g}%", True
    yield f"{float(value):g}", True
    yield f"{float(value):g} percent", True
    yield rf"{float(value):g}\text{{ percent}}", True
    yield f"{float(value / 100):g}", True
    yield tex(value / 100), True
    yield f"{float(value * 10):g}%", False
    yield rf"{float(value + 1):g}\%", False
    yield f"{float(value / 10):g}", False
    yield rf"{float(value / 100):g}\%", False


def radical(gold: str) -> Rewritten:
    k, n = (int(part or 1) for part in re.fullmatch(r"(\d*)\s*\\sqrt\{(\d+)\}", gold).groups())  # type: ignore[union-attr]
    yield rf"\sqrt{{{k * k * n}}}", True
    yield rf"\frac{{{k * n}}}{{\sqrt{{{n}}}}}", True
    yield rf"{k} \cdot {n}^{{1/2}}", True
    yield f"{k}*sqrt({n})", True
    yield rf"\frac{{{2 * k}\sqrt{{{n}}}}}{{2}}", True
    yield f"{k}√{n}", True
    yield rf"{k + 1}\sqrt{{{n}}}", False
    yield rf"{k}\sqrt{{{n + 1}}}", False
    yield rf"-{k}\sqrt{{{n}}}", False
    yield rf"{k}\sqrt[3]{{{n}}}", n in (0, 1)
    yield f"{k * n**0.5:.1f}", False
    yield rf"{k} + \sqrt{{{n}}}", False


def nested_radical(gold: str) -> Rewritten:
    k, n = (int(part or 1) for part in re.fullmatch(r"(\d*)\s*\\sqrt\{(\d+)\}", gold).groups())  # type: ignore[union-attr]
    yield rf"\sqrt{{{1 + k * k * n} + {2 * k}\sqrt{{{n}}}}} - 1", True
    yield rf"\frac{{{k * k * n - 1}}}{{{k}\sqrt{{{n}}} - 1}} - 1", True
    yield rf"\sqrt{{{1 + k * k * n} + {2 * k}\sqrt{{{n}}}}}", False
    yield rf"\sqrt{{{2 + k * k * n} + {2 * k}\sqrt{{{n}}}}} - 1", False


def complex_number(gold: str) -> Rewritten:
    found = re.fullmatch(r"(-?\d+) ?([+-]) ?(\d*)i", gold)
    a, b = int(found[1]), int(found[2] + (found[3] or "1"))  # type: ignore[index]
    yield f"{b}i + {a}", True
    yield rf"{a} {'+' if b > 0 else '-'} i \cdot {abs(b)}", True
    yield rf"\frac{{{2 * a} {2 * b:+}i}}{{2}}", True
    yield rf"({a}) + ({b})i", True
    yield rf"i({b} {-a:+}i)", True
    yield f"{a}{-b:+}i", False
    yield f"{-a}{b:+}i", False
    yield f"{b}{a:+}i", a == b
    yield str(a), False
    yield f"{a}{b:+}", False


def interval(gold: str) -> Rewritten:
    opened, low, high, closed = re.fullmatch(r"([(\[])([^,()\[\]]+),([^,()\[\]]+)([)\]])", gold).groups()  # type: ignore[union-attr]
    low, high = low.strip(), high.strip()
    yield rf"\left{opened}{low},{high}\right{closed}", True
    yield f"{opened} {low} , {high} {closed}", True
    yield rf"x \in {opened}{low}, {high}{closed}", True
    signs = {"(": "<", "[": r"\le", ")": "<", "]": r"\le"}
    conditions = ([f"{low} {signs[opened]} x"] if "infty" not in low else []) + (
        [f"x {signs[closed]} {high}"] if "infty" not in high else []
    )
    if len(conditions) == 2:
        yield f"{low} {signs[opened]} x {signs[closed]} {high}", True
        yield f"{'(' if opened == '[' else '['}{low},{high}{closed}", False
        yield f"{opened}{low},{high}{')' if closed == ']' else ']'}", False
        yield f"{opened}{high},{low}{closed}", False
        yield f"{opened}{low},2+{high}{closed}", False
    elif conditions:
        yield conditions[0], True
        swapped = {r"\le": "<", "<": r"\le"}
        yield re.sub(r"<|\\le", lambda sign: swapped[sign[0]], conditions[0]), False
        yield conditions[0].replace("x", "2x"), "0" in (low, high)
    yield rf"{opened}{low},{high}{closed} \cup \{{1000\}}", "infty)" in gold.replace(" ", "")


def union(gold: str) -> Rewritten:
    parts = [part.strip() for part in gold.split(r"\cup")]
    yield r" \cup ".join(reversed(parts)), True
    yield r"\cup".join(parts), True
    yield "x \\in " + gold, True
    yield " U ".join(parts), True
    yield parts[0], False
    yield r" \cap ".join(parts), False
    last = parts[-1]
    flipped = last[:-1] + {")": "]", "]": ")"}[last[-1]] if "infty" not in last.rsplit(",", 1)[1] else None
    if flipped:
        yield r" \cup ".join([*parts[:-1], flipped]), False
    first = parts[0]
    if "infty" not in first.split(",", 1)[0] and first[0] in "([":
        yield r" \cup ".join([{"(": "[", "[": "("}[first[0]] + first[1:], *parts[1:]]), False


def tuple_(gold: str) -> Rewritten:
    parts = [part.strip() for part in gold.strip("()").split(",")]
    yield f"\\left( {', '.join(parts)} \\right)", True
    yield f"({','.join(parts)})", True
    yield f"({', '.join(f'{part} + 0' for part in parts)})", True
    yield f"({', '.join(reversed(parts))})", parts == parts[::-1]
    yield f"({', '.join([*parts, '0'])})", False
    yield f"({', '.join([*parts[:-1], parts[-1] + ' + 1'])})", False
    yield parts[0], False
    if len(set(parts)) == len(parts):
        yield rf"\{{{', '.join(parts)}\}}", False


def list_(gold: str) -> Rewritten:
    parts = [part.strip() for part in gold.split(",")]
    yield ", ".join(reversed(parts)), True
    yield rf"\{{{', '.join(parts)}\}}", True
    yield " and ".join(parts) if len(parts) == 2 else ", ".join(parts[:-1]) + ", and " + parts[-1], True
    yield " or ".join(f"$x={part}$" for part in parts), True
    yield ", ".join(parts[1:]), False
    yield ", ".join([*parts, "97"]), False
    yield ", ".join([*parts[:-1], f"{parts[-1]} + 1"]), False


def set_(gold: str) -> Rewritten:
    parts = [part.strip() for part in gold.removeprefix(r"\{").removesuffix(r"\}").split(",")]
    yield rf"\{{{', '.join(reversed(parts))}\}}", True
    yield ",".join(parts), True
    yield rf"\left\{{{', '.join(parts)}\right\}}", True
    yield rf"\{{{', '.join(parts[1:])}\}}", False
    yield rf"\{{{', '.join([*parts, '97'])}\}}", False


def matrix(gold: str) -> Rewritten:
    inside = re.fullmatch(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", gold, re.DOTALL)[1]  # type: ignore[index]
    table = [[cell.strip() for cell in row.split("&")] for row in inside.split(r"\\")]

    def written(rows_: list[list[str]], kind: str = "pmatrix") -> str:
        return rf"\begin{{{kind}}} " + r" \\ ".join(" & ".join(row) for row in rows_) + rf" \end{{{kind}}}"

    yield written(table, "bmatrix"), True
    yield written([[f"{cell} + 0" for cell in row] for row in table]), True
    yield (
        rf"\left( \begin{{array}}{{{'c' * len(table[0])}}} "
        + r" \\ ".join("&".join(row) for row in table)
        + r" \end{array} \right)",
        True,
    )
    turned = [list(column) for column in zip(*table, strict=True)]
    yield written(turned), turned == table
    yield written(table[::-1]), table == table[::-1]
    yield written([*table[:-1], [*table[-1][:-1], f"{table[-1][-1]} + 1"]]), False
    yield written([*table, table[0]]), False
    if len(table[0]) == 1:
        yield "(" + ", ".join(row[0] for row in table) + ")", True
        yield rf"\langle {', '.join(row[0] for row in table)} \rangle", True


def line(gold: str) -> Rewritten:
    slope, sign, shift = re.fullmatch(r"y ?= ?(-?\d*)x ?([+-]) ?(\d+)", gold).groups()  # type: ignore[union-attr]
    m = int(slope + "1") if slope in ("", "-") else int(slope)
    b = int(sign + shift)
    yield f"y - ({m})x = {b}", True
    yield f"{m}x - y + ({b}) = 0", True
    yield f"2y = {2 * m}x {2 * b:+}", True
    yield f"{m}x {b:+} = y", True
    yield f"y={b}+({m})x", True
    yield f"y = {m + 1}x {b:+}", False
    yield f"y = {m}x {b + 1:+}", False
    yield f"y = {m}x {-b:+}", b == 0
    yield f"x = {m}y {b:+}", False
    yield rf"y \le {m}x {b:+}", False


def assignment(gold: str) -> Rewritten:
    name, value = (part.strip() for part in gold.split("="))
    yield value, True
    yield f"{value} = {name}", True
    yield f"${name}={value}$", True
    yield f"{name} = {value} + 1", False
    yield f"{name} = -({value})", value == "0"
    yield f"{'q' if name != 'q' else 'r'} = {value}", False


def inequality(gold: str) -> Rewritten:
    n = int(gold)
    yield f"{n} < x", True
    yield f"2x > {2 * n}", True
    yield f"-x < {-n}", True
    yield rf"({n}, \infty)", True
    yield rf"x \in ({n}, \infty)", True
    yield rf"x \ge {n}", False
    yield f"x < {n}", False
    yield f"x > {n + 1}", False
    yield f"x > {-n}", n == 0
    yield rf"[{n}, \infty)", False
    yield f"y > {n}", False


def polynomial(gold: str) -> Rewritten:
    yield gold.replace(" ", ""), True
    yield f"{gold} + 0", True
    yield rf"\frac{{2({gold})}}{{2}}", True
    yield f"({gold})(x+1) - x({gold})", True
    terms = re.findall(r"[+-]?[^+-]+", gold.replace(" ", ""))
    yield " ".join(term if term[0] in "+-" else f"+{term}" for term in reversed(terms)).lstrip("+"), True
    yield f"{gold} + 1", False
    yield f"-({gold})", False
    yield f"2({gold})", False
    yield re.sub(r"x", "y", gold), False
    yield gold.replace("x", "(x+1)"), False


def factored(gold: str) -> Rewritten:
    a, b = (int(part) for part in gold.split(","))
    expanded = f"x^2 {-(a + b):+}x {a * b:+}"
    yield f"(x {-a:+})(x {-b:+})", True
    yield f"(x {-b:+})(x {-a:+})", True
    yield f"({a} - x)({b} - x)", True
    yield rf"\frac{{(x {-a:+})^2 (x {-b:+})}}{{x {-a:+}}}", True
    yield f"(x {a:+})(x {b:+})", a + b == 0 or (a == 0 and b == 0)
    yield f"(x {-a:+})(x {-b:+}) + x", False
    yield expanded.replace("x^2", "x^3"), False


def rational_expression(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"1 - \frac{{{n}}}{{x + {n}}}", True
    yield f"x/(x+{n})", True
    yield rf"\left(1 + \frac{{{n}}}{{x}}\right)^{{-1}}", True
    yield rf"\frac{{2x}}{{2x + {2 * n}}}", True
    yield rf"\frac{{x}}{{x - {n}}}", False
    yield rf"\frac{{x + 1}}{{x + {n} + 1}}", False
    yield rf"1 + \frac{{{n}}}{{x}}", False
    yield f"x/x+{n}", False


def function_value(gold: str) -> Rewritten:
    n = int(gold)
    yield f"f(x) = {n}x^2", True
    yield f"y = {n}x^2", True
    yield f"{n} x \\cdot x", True
    yield f"f(x) = {n}x^3", False
    yield f"f(x) = {n + 1}x^2", False
    yield f"f(x) = {n}x^2 + f(0)", False


def transcendental(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"\ln {n} + \ln {n}", True
    yield rf"\ln({n * n})", True
    yield rf"2\log_{{e}} {n}", True
    yield rf"\ln {n}", n == 1
    yield rf"\ln {n + 1} + \ln {n}", False
    yield rf"2\ln {n} + \frac{{1}}{{10^{{9}}}}", False


def angle_value(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"\cos {90 - n}^\circ", True
    yield rf"\cos({90 - n}^{{\circ}})", True
    yield rf"2 \sin\frac{{{n}^\circ}}{{2}}\cos\frac{{{n}^\circ}}{{2}}", True
    yield rf"\sin {180 - n}^\circ", True
    yield rf"-\sin {n}^\circ", False
    yield rf"\cos {n}^\circ", n == 45
    yield rf"\sin {n + 1}^\circ", False


def exponential(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"e^{{{n}}} \cdot e", True
    yield rf"\exp({n + 1})", True
    yield rf"\frac{{1}}{{e^{{-{n + 1}}}}}", True
    yield rf"e^{{{n}}}", False
    yield rf"e^{{{n}}} + 1", False
    yield rf"{n + 1} e", False


def tiny(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"2^{{-{n}}}", True
    yield rf"\frac{{2}}{{2^{{{n + 1}}}}}", True
    yield rf"\frac{{1}}{{2^{{{n + 1}}}}}", False
    yield rf"-\frac{{1}}{{2^{{{n}}}}}", False
    yield "0", False
    yield rf"\frac{{1}}{{2^{{{n}}} + 1}}", False


def large_power(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"4^{{{n}}}", True
    yield rf"2 \cdot 2^{{{2 * n - 1}}}", True
    yield rf"2^{{{2 * n}}} + 1", False
    yield rf"2^{{{2 * n + 1}}}", False
    yield rf"2^{{{2 * n - 1}}}", False


def combinatorial(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"\frac{{{n}!}}{{2! \cdot {n - 2}!}}", True
    yield rf"{n * (n - 1) // 2}", True
    yield rf"\frac{{{n} \cdot {n - 1}}}{{2}}", True
    yield rf"\binom{{{n}}}{{{n - 2}}}", True
    yield rf"\binom{{{n}}}{{3}}", n == 5
    yield rf"\binom{{{n + 1}}}{{2}}", False
    yield rf"{n}!", n == 3


def constant_pi(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"\pi \cdot {n}", True
    yield f"{n}π", True
    yield f"{n}*pi", True
    yield rf"\frac{{{2 * n}\pi}}{{2}}", True
    yield rf"{n + 1}\pi", False
    yield rf"{n}", False
    yield f"{n * 3.14:g}", False
    yield rf"{n}\pi^2", False


def exact_e(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"\frac{{e - {n}}}{{e}}", True
    yield f"1 - {n}/e", True
    yield rf"1 - {n}e^{{-1}}", True
    yield rf"1 + \frac{{{n}}}{{e}}", False
    yield rf"\frac{{{n}}}{{e}}", False
    yield rf"\frac{{{n}}}{{e}} - 1", False


def base(gold: str) -> Rewritten:
    digits, of = gold.replace("{", "").replace("}", "").split("_")
    yield f"{digits}_{{{of}}}", True
    yield f"${digits}_{of}$", True
    yield rf"{digits}_{{\text{{{of}}}}}", True
    yield f"{digits}_{int(of) + 1}", len(digits) == 1
    yield f"{digits}0_{of}", False
    yield f"{digits[::-1]}_{of}", digits == digits[::-1]


def time_(gold: str) -> Rewritten:
    minutes = int(gold.split(":")[1])
    yield f"\\text{{{gold} p.m.}}", True
    yield f"{gold} PM", True
    yield f"{gold}pm", True
    yield f"{gold} a.m.", False
    yield f"{gold.split(':')[0]}:{(minutes + 1) % 60:02d} p.m.", False
    yield f"{(int(gold.split(':')[0]) % 12) + 1}:{minutes:02d} p.m.", False


def money(gold: str) -> Rewritten:
    amount = Fraction(gold)
    yield rf"\$ {gold}", True
    yield f"${gold}", True
    yield f"{gold} dollars", True
    yield rf"{gold}\text{{ dollars}}", True
    yield f"{float(amount):.2f}", True
    yield rf"\${float(amount * 10):.2f}", False
    yield rf"\${float(amount + 1):.2f}", False
    yield rf"-\${gold}", False
    yield f"{gold} cents", False


def length(gold: str) -> Rewritten:
    n = int(gold)
    yield rf"{n}\text{{ cm}}", True
    yield f"{n}", True
    yield f"{n} centimeters", True
    yield rf"{n}\,\mathrm{{cm}}", True
    yield rf"{n * 10}\text{{ mm}}", True
    yield rf"{n}\text{{ m}}", False
    yield rf"{n}\text{{ inches}}", False
    yield rf"{n + 1}\text{{ cm}}", False
    yield rf"{n}\text{{ cm}}^2", False


def counted(gold: str) -> Rewritten:
    n, _, noun = gold.partition(" ")
    yield n, True
    yield f"{n} ({noun})", True
    yield rf"{n}\text{{ {noun}}}", True
    yield f"{int(n) + 1} {noun}", False
    yield rf"{int(n) * 2}\text{{ {noun}}}", False


def degrees(gold: str) -> Rewritten:
    n = int(re.sub(r"\D", "", gold))
    yield rf"{n}^{{\circ}}", True
    yield f"{n}°", True
    yield f"{n} degrees", True
    yield f"{n}", True
    yield rf"{n + 1}^\circ", False
    yield rf"{180 - n}^\circ", n == 90
    yield rf"-{n}^\circ", n == 0


def words(gold: str) -> Rewritten:
    bare = re.fullmatch(r"\\text\{(.*)\}", gold)[1]  # type: ignore[index]
    yield bare, True
    yield bare.upper(), True
    yield rf"\textbf{{{bare}}}", True
    yield rf"\mathrm{{{bare}}}", True
    yield bare[::-1], bare.lower() == bare[::-1].lower()
    yield bare[1:] + bare[0], len(set(bare)) == 1
    yield f"not {bare}", False
    yield "5", False


def choice(gold: str) -> Rewritten:
    other = "ABCDE"[("ABCDE".index(gold) + 1) % 5]
    yield f"({gold})", True
    yield rf"\text{{({gold})}}", True
    yield rf"\textbf{{({gold})}}", True
    yield rf"\mathrm{{{gold}}}", True
    yield f"({gold}) 42", True
    yield other, False
    yield rf"\text{{({other})}}", False
    yield f"{gold}{other}", False


def ratio(gold: str) -> Rewritten:
    a, b = (int(part) for part in gold.split(":"))
    yield f"{a} : {b}", True
    yield f"{3 * a}:{3 * b}", True
    yield rf"\frac{{{a}}}{{{b}}}", True
    yield f"{b}:{a}", a == b
    yield f"{a + 1}:{b}", False


def plus_minus(gold: str) -> Rewritten:
    n = int(gold)
    yield f"{n}, -{n}", True
    yield f"x = {n} or x = -{n}", True
    yield rf"\{{-{n}, {n}\}}", True
    yield f"{n}", False
    yield f"-{n}", False
    yield rf"\pm {n + 1}", False


def pattern(expression: str) -> Callable[[list[str]], list[str]]:
    return lambda known: [gold for gold in known if re.fullmatch(expression, gold)]


def made(*values: str) -> Callable[[list[str]], list[str]]:
    return lambda known: list(values)


def wrapped(expression: str, template: str) -> Callable[[list[str]], list[tuple[str, str]]]:
    r"""Golds made of a number of the data: `template` with `#` replaced, beside the number."""
    return lambda known: [(template.replace("#", gold), gold) for gold in known if re.fullmatch(expression, gold)]


NUMBER, SMALL = r"\d{2,3}", r"[2-9]|[1-4]\d"
KINDS: dict[str, tuple[Callable[[list[str]], Any], Callable[[str], Rewritten]]] = {
    "integer": (pattern(r"\d{4,}|\d{1,3}(,\d{3})+|\d{2}"), integer),
    "huge integer": (
        lambda known: [str(int(g) * (10**23 + 117) + 12345678901234567891) for g in pattern(r"\d{4}")(known)],
        huge_integer,
    ),
    "decimal": (pattern(r"\d+\.\d+"), decimal),
    "fraction": (pattern(r"-?\\frac\{\d+\}\{\d+\}"), fraction),
    "mixed number": (
        lambda known: [(tex(abs(fraction_of(g)) + 2), g) for g in pattern(r"\\frac\{\d\}\{\d+\}")(known)],
        mixed_number,
    ),
    "percentage": (pattern(r"\d+(\.\d+)?\\%"), percentage),
    "radical": (pattern(r"\d*\s*\\sqrt\{\d+\}"), radical),
    "nested radical": (pattern(r"\d*\s*\\sqrt\{\d+\}"), nested_radical),
    "complex": (pattern(r"-?\d+ ?[+-] ?\d*i"), complex_number),
    "interval": (pattern(r"[(\[](-?\d+|-\\infty),\s*(-?\d+|\\infty)\]|\[(-?\d+),\s*(-?\d+|\\infty)[)\]]"), interval),
    "union": (pattern(r"([(\[][^()\[\]]*[)\]]\s*\\cup\s*)+[(\[][^()\[\]]*[)\]]"), union),
    "tuple": (pattern(r"\(-?[\d/]+(,\s*-?[\d/]+){1,3}\)"), tuple_),
    "list": (pattern(r"-?\d+,\s+-?\d+(,\s+-?\d+)*"), list_),
    "set": (made(r"\{1,2,3\}", r"\{-2,0,7\}", r"\{\frac{1}{2},3\}", r"\{5,8\}", r"\{1,\sqrt{2}\}"), set_),
    "matrix": (pattern(r"\\begin\{pmatrix\}[^a-z]*\\end\{pmatrix\}"), matrix),
    "line": (pattern(r"y ?= ?-?\d*x ?[+-] ?\d+"), line),
    "assignment": (pattern(r"[a-z] ?= ?-?\d+"), assignment),
    "inequality": (wrapped(SMALL, "x > #"), inequality),
    "polynomial": (pattern(r"-?\d*x\^\d( ?[+-] ?\d*x(\^\d)?)* ?[+-] ?\d+"), polynomial),
    "factored": (
        lambda known: [
            (f"x^2 {-(a + b):+}x {a * b:+}", f"{a},{b}")
            for a, b in ((2, 3), (-1, 4), (5, -5), (7, 1), (-2, -6), (3, 3))
        ],
        factored,
    ),
    "rational expression": (wrapped(SMALL, r"\frac{x}{x + #}"), rational_expression),
    "function": (wrapped(SMALL, "f(x) = #x^2"), function_value),
    "logarithm": (wrapped(SMALL, r"2\ln #"), transcendental),
    "trigonometric": (wrapped(r"[1-8]\d", r"\sin #^\circ"), angle_value),
    "exponential": (lambda known: [(rf"e^{{{n + 1}}}", str(n)) for n in (1, 2, 5, 9, 30)], exponential),
    "tiny number": (wrapped(r"[3-9]\d|1\d\d", r"\frac{1}{2^{#}}"), tiny),
    "large power": (lambda known: [(rf"2^{{{2 * n}}}", str(n)) for n in (12, 50, 150, 1002)], large_power),
    "combinatorial": (wrapped(r"[4-9]|1\d", r"\binom{#}{2}"), combinatorial),
    "multiple of pi": (wrapped(SMALL, r"#\pi"), constant_pi),
    "with e": (wrapped(r"[1-9]", r"1 - \frac{#}{e}"), exact_e),
    "base": (pattern(r"\d+_\{?[2-8]\}?"), base),
    "time": (lambda known: [(f"\\text{{{t} PM}}", t) for t in ("1:03", "3:45", "11:30", "12:15", "7:08")], time_),
    "money": (lambda known: [(rf"\${g}", g) for g in pattern(r"\d{1,2}\.\d\d|\d{2}")(known)], money),
    "length": (wrapped(NUMBER, r"# \text{ cm}"), length),
    "counted": (made("12 apples", "7 ways", "240 students", "18 integers", "3 hours"), counted),
    "degrees": (pattern(r"\d+\^\\circ"), degrees),
    "text": (pattern(r"\\text\{[A-Za-z]{3,}\}"), words),
    "choice": (made("A", "B", "C", "D", "E"), choice),
    "ratio": (made("3:1", "1:2", "2:5", "7:3"), ratio),
    "plus-minus": (wrapped(SMALL, r"\pm #"), plus_minus),
}


def pairs(known: list[str]) -> Iterator[dict[str, Any]]:
    for kind, (choose, rewrite) in KINDS.items():
        found = choose(known)
        chosen = random.Random(kind).sample(found, min(PER_KIND, len(found)))
        for each in chosen:
            gold, seed = each if isinstance(each, tuple) else (each, each)
            seen = set()
            for answer, equal in rewrite(seed):
                if answer not in seen and answer != gold:
                    seen.add(answer)
                    yield {"kind": kind, "gold": gold, "answer": answer, "equal": equal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with gsm8k/ and math/")
    lines = [json.dumps(pair, ensure_ascii=False) for pair in pairs(golds(parser.parse_args().data))]
    PAIRS.parent.mkdir(exist_ok=True)
    PAIRS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} pairs in {PAIRS}")


if __name__ == "__main__":
    main()
