"""Equivalence: pairs whose truth is known by hand, the labelled set, and what each rule changes."""

import json
from collections import Counter
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.tasks.grading import Rules, grade, grader

LABELLED = Path(__file__).parent / "data" / "grading_pairs.jsonl"

EQUAL = r"""
1,000,000 | 10^6
250000 | 2.5 \times 10^{5}
33\frac{1}{3}\% | 33 1/3 %
\frac{\pi}{3} | 60^\circ
\mathbb{R} | all real numbers
\mathbb{R} | (-\infty,\infty)
\emptyset | no solution
\{\} | \emptyset
\mathbf{i}-2\mathbf{j} | (1,-2)
(1,-2,0) | \hat{i} - 2\hat{j}
\begin{pmatrix}1\\-2\\3\end{pmatrix} | \mathbf{i}-2\mathbf{j}+3\mathbf{k}
(-3,3) | |x| < 3
[-2,4] | |x-1| \le 3
(-\infty,-3)\cup(3,\infty) | |x| > 3
(-\infty,-1]\cup[3,\infty) | x \le -1 \text{ or } x \ge 3
(0,5) | x > 0, x < 5
(0,5) | x>0 and x<5
(-\infty,1)\cup(1,2)\cup(2,\infty) | x \ne 1, 2
\mathbb{R}\setminus\{1,2\} | x \neq 1, x \neq 2
1,2 | x = 1, 2
2 | two
3000000 | 3 million
60 mph | 60 miles per hour
60 mph | 60
20^\circ C | 20
1010_2 | 1010_{\text{two}}
0.006 | 6 \times 10^{-3}
2 | e^{\ln 2}
\sqrt[3]{2} | 2^{\frac13}
(x-1)^2+(y+2)^2=9 | x^2+y^2-2x+4y-4=0
\frac{x^2}{4}+\frac{y^2}{9}=1 | 9x^2+4y^2=36
xy=1 | y=\frac1x
\sin 2x | 2\sin x\cos x
\log_2 3 | \frac{\ln 3}{\ln 2}
\pi | 3.141592653589793
\frac13 | 0.3333333333333333
\frac{1}{6} | 0.1\overline{6}
5 hours | 300 minutes
5 | 5 (since x)
f^{-1}(x)=\frac{x}{2} | \frac{x}{2}
f(x)=2x | y=2x
y=2x | 2x
\text{odd} | odd
\text{odd} | o d d
(2,3) | x=2,y=3
(2,3) | (x,y)=(2,3)
2,3 | (2,3)
(1,2),(3,4) | (3,4),(1,2)
[0,1)\cup[1,2] | [0,2]
\frac{\sqrt{2}}{2} | \frac{1}{\sqrt{2}}
2+\sqrt3, 2-\sqrt3 | 2\pm\sqrt3
x = 2\pm\sqrt3 | 2+\sqrt3, 2-\sqrt3
3 \pm 2 \sqrt{2} | 3 \mp 2\sqrt2
-i | \frac{1}{i}
i^{2023} | -i
(2+i)(2-i) | 5
|3+4i| | 5
\sqrt{-4} | 2i
12!/10! | 132
5! | 120
10\sqrt{3}\text{ cm} | 10\sqrt3
\$12.50 | 12.5
\$12.50 | 12.50 dollars
\$1{,}234.50 | 1234.5
50 cents | \$0.50
(A) | A
\textbf{(B) } 12 | B
B | \textbf{(B)}\ 12
x+y | y+x
2xy | 2yx
ab | ba
x/2 | \frac{x}{2}
x/2y | \frac{x}{2}y
2^3^2 | 512
\frac{a}{b} | a/b
\left(\frac{1}{2}\right)^{n} | 2^{-n}
4^n | 2^{2n}
(-1)^{n} | (-1)^{n+2}
n! | n(n-1)!
\binom{n}{2} | \frac{n(n-1)}{2}
\lfloor \frac{7}{2} \rfloor | 3
\sum_{i=1}^{n} i | \frac{n(n+1)}{2}
\int_0^1 x dx | \frac12
\infty | +\infty
2<x<5 | 5>x>2
2<x<5 | (2,5)
a<b<c | c>b>a
3x+2y=6 | 6x+4y=12
3x+2y<6 | 6x+4y<12
3x+2y<6 | -3x-2y>-6
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{bmatrix}1&2\\3&4\end{bmatrix}
\begin{pmatrix}\frac12\\0\end{pmatrix} | \begin{pmatrix}0.5\\0\end{pmatrix}
\langle 1,2\rangle | (1,2)
100 | 1e2
100 | 10^2
0 | -0
0.5 | .5
0.5 | 50\%
\sqrt{x^2} | |x|
\frac{x^2-1}{x-1} | x+1
e^{x+y} | e^xe^y
\ln(xy) | \ln x+\ln y
2\cos^2 x - 1 | \cos 2x
\tan x | \frac{\sin x}{\cos x}
\sec x | \frac{1}{\cos x}
\cot x | \frac{1}{\tan x}
\arctan 1 | \frac{\pi}{4}
\sin^{-1}(1/2) | \frac{\pi}{6}
x^{2}y^{3} | y^3x^2
5,7 | 5 and 7
5 \text{ and } 7 | 7, 5
10 | ten
7 | 7.
\frac{1}{2} | \frac{1}{2}.
\text{Monday} | monday
\text{1,2,3} | 1,2,3
3.0 | 3
12345678901234567890 | 1.234567890123456789\times 10^{19}
\frac{3}{4}\text{ or }0.75 | 0.75
[1,2,3] | (1,2,3)
m\angle ABC = 90^\circ | 90^\circ
\overline{AB} | AB
x\geq-2 | [-2,\infty)
\{x\mid x\geq-2\} | [-2,\infty)
1 \text{ foot} | 12 inches
5\ \mathrm{m/s} | 5 m/s
2\text{ hours }30\text{ minutes} | 2.5 hours
1/2 | 1 / 2
\cos\left(\frac{\pi}{3}\right) | 0.5
\frac{2}{3}\pi | \frac{2\pi}{3}
\sqrt{50} | 5\sqrt{2}
(3,\infty) | x>3
1:2 | \frac{1}{2}
y=-x+3 | x+y=3
p(x)=x^2 | x^2
-\frac{1}{2} | \frac{-1}{2}
-\frac{1}{2} | \frac{1}{-2}
0.1 | 1/10
7 | seven
\left\{-1,\frac{1}{2}\right\} | -1, 0.5
(-1)^{1/3} | -1
\sqrt{8+2\sqrt{15}} | \sqrt3+\sqrt5
\frac{\ln 8}{\ln 2} | 3
10^{-3} | 0.001
\frac{1}{2}, \frac{1}{3} | 1/3, 1/2
(2, 3) | \left( 2,\, 3 \right)
x=\frac{-b\pm\sqrt{b^2-4ac}}{2a} | \frac{-b\pm\sqrt{b^2-4ac}}{2a}
\frac{-1\pm\sqrt{5}}{2} | \frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2}
\sqrt{2}\sqrt{3} | \sqrt6
5.0\times 10^{-3} | 0.005
5.0 x 10^{-3} | 0.005
3.0e8 | 3\times10^8
6.02 \cdot 10^{23} | 6.02e23
7! | 5040
-2 \le x < 5 | [-2,5)
x<5 \text{ and } x\ge -2 | [-2,5)
[-2,5) | -2\leq x<5
(-\infty, 4) | x < 4
\{ x : x \in \mathbb{R}, x \ne 2\} | \mathbb{R}\setminus\{2\}
\mathbb{R} \setminus \{2\} | (-\infty,2)\cup(2,\infty)
x \neq 2 | (-\infty,2)\cup(2,\infty)
f(x) = x^2 + 1 | x^2+1
f(x)=x^2+1 | f(x)=1+x^2
y^2 = 4x | x = \frac{y^2}{4}
x^2 + y^2 = 25 | x^2+y^2-25=0
\begin{bmatrix} 1 & 0 \\ 0 & 1 \end{bmatrix} | \left[\begin{array}{cc}1&0\\0&1\end{array}\right]
1/3 | 0.\overline{3}
\frac{1}{2} | 0.5000
90^\circ | \frac{\pi}{2}\text{ radians}
2 \text{ kg} | 2000 \text{ g}
2 \text{ kg} | 2000 g
$1.50 | 150 cents
25\% | \frac14
25\% | 1/4
2.5\% | 0.025
12:30 | 12:30 PM
\text{Yes} | yes
\text{True} | true
\text{January 5} | January 5
e | 2.718281828459045
\sqrt{2} | 1.41421356237
2^{100} | 1267650600228229401496703205376
\ln 2 | \frac{\ln 4}{2}
\log_{10} 100 | 2
\log 100 | 2
\log 1000 | 3
\log_4 8 | \frac{3}{2}
\sin 30^\circ | 0.5
\cos \frac{\pi}{5} | \frac{1+\sqrt5}{4}
\arctan\frac12+\arctan\frac13 | \frac\pi4
\frac{1}{\sqrt{2}+1} | \sqrt{2}-1
\sqrt[3]{27} | 3
\sqrt[3]{-8} | -2
8^{2/3} | 4
(1+i)^2 | 2i
\frac{1}{1+i} | \frac{1-i}{2}
3+4i | 4i+3
a^2-b^2 | (a-b)(a+b)
(a+b)^3 | a^3+3a^2b+3ab^2+b^3
\frac{x^2+2x}{x} | x+2
x^{-1} | \frac1x
x^{1/2} | \sqrt{x}
\sqrt{xy} | \sqrt{x}\sqrt{y}
\frac{2}{x+1}+\frac{3}{x-1} | \frac{5x+1}{x^2-1}
\frac{n(n+1)}{2} | \frac{n^2+n}{2}
2^{n+1}-1 | 2\cdot 2^n - 1
\binom{2n}{n} | \frac{(2n)!}{n!n!}
\binom{2n}{n} | \frac{(2n)!}{(n!)^2}
\lceil n/2 \rceil | \lfloor (n+1)/2 \rfloor
\max(3,5) | 5
\gcd(12,18) | 6
|-5| | 5
|a-b| | |b-a|
a>b | b<a
x+y>0 | -x-y<0
3x-5y=2 | -3x+5y=-2
x=3,y=4 | y=4,x=3
(3,4) | x=3,y=4
[3,4] | 3\le x\le 4
(0,1)\cup(2,3) | (2,3)\cup(0,1)
(0,2)\cup(1,3) | (0,3)
\{1\}\cup\{2\} | \{1,2\}
\{1,2\}\cap\{2,3\} | \{2\}
\{1,2,2\} | \{1,2\}
\{1,2\} | \{2,1\}
\{(1,2),(2,1)\} | \{(2,1),(1,2)\}
\emptyset | \varnothing
A \text{ and } C | C and A
B | The answer is B
B | B) 12
B | B. 12
11010_2 | 26_{10}
FF_{16} | ff_{16}
FF_{16} | 255_{10}
0 | 0.0
-0.5 | -\frac12
- \frac{1}{2} | -0.5
1,2,3 | 1, 2, 3
1{,}234{,}567 | 1234567
1 234 567 | 1234567
1\,234\,567 | 1234567
\boxed{5} | 5
5\text{ (units)} | 5
\sim 5 | 5
\approx 5.3 | 5.3
5 \frac{1}{2} | 5.5
-5 \frac{1}{2} | -5.5
\tfrac{1}{2}x | x/2
\frac{x}{2} | \frac{1}{2}x
3/4x | \frac{3x}{4}
6:00 a.m. | 6 am
r = 2\cos\theta | 2\cos\theta
\theta = \frac{\pi}{4} | \frac{\pi}{4}
x\in\{1,2\} | 1,2
x \in \{1,2\} | x=1 \text{ or } x=2
k\pi, k\in\mathbb{Z} | k\pi, k \in \mathbb{Z}
\frac{\sqrt{3}}{3} | \frac{1}{\sqrt{3}}
\text{None} | none
-1 \pm 2i | -1-2i, -1+2i
y - 3 = 2(x - 1) | y=2x+1
\infty | infinity
4\sqrt{3}-4 | 4(\sqrt{3}-1)
\vec{v}=(1,2) | (1,2)
\tan^{-1}(1) | 45^\circ
1 mile | 5280 feet
3 \text{ square feet} | 3 ft^2
5 | 5\text{ apples}
5\text{ apples} | 5\text{ oranges}
\sqrt2 | \sqrt2 \approx 1.414
x = \frac83 \approx 2.67 | \frac83
$5 | 5 dollars
$5$ | 5
4 x 5 | 20
-$5.50 | -5.5
"""

DIFFERENT = r"""
(-3,3) | |x| \le 3
\pi | 3.14159
\pi | 3.14
\frac13 | 0.333
x^2 | t^2
\text{odd} | \text{even}
\{2,3\} | (2,3)
(1,2),(3,4) | (2,1),(3,4)
[1,2] | \{1,2\}
(0,1)\cup(1,2) | (0,2)
\frac{\sqrt{2}}{2} | 0.7071
\frac{1+\sqrt5}{2} | \frac{1-\sqrt5}{2}
6i | 6
3:45 | 3:54
A | B
A | a
AB | BA
-x^2 | (-x)^2
\frac{a}{b} | b/a
4^n | 2^{n}
\infty | -\infty
\infty | 10^{100}
x>3 | x\ge 3
3x+2y=6 | 3x+2y=7
3x+2y<6 | 3x+2y>6
y=\sqrt{x} | y^2=x
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&3\\2&4\end{pmatrix}
0.5 | 5\%
1/0 | 5
\sqrt{x^2} | x
\frac{d}{dx}x^2 | 2x
12345678901234567890 | 12345678901234567891
2 \frac{1}{2} | 1
\frac{22}{7} | \pi
1 - \frac1e | 1+\frac1e
f(x)=x^2+1 | g(x)=x^2+1
\begin{pmatrix} 1 & 2 \end{pmatrix} | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
1/3 | 0.33
\frac{\pi}{2} | 90
30 \text{ mph} | 30 \text{ km/h}
€5 | $5
noon | midnight
\text{Yes} | No
\text{no} | on
\text{dog} | god
dog | g*o*d
\text{January 5} | January 6
e | 2.718
\sqrt{2} | 1.414
2^{100} | 1267650600228229401496703205377
\frac{1}{3^{50}} | \frac{1}{3^{51}}
10^{-20} | 0
10^{-20} | 2\cdot10^{-20}
e^{-100} | e^{-101}
1+10^{-30} | 1
\sqrt{10^{40}+1} | 10^{20}
\pi | \frac{355}{113}
e^{\pi\sqrt{163}} | 262537412640768744
\sin 30 | 0.5
3+4i | 3-4i
3+4i | 3 + 4j
\overline{z} | z
2^{n+1}-1 | 2^{n+2}-1
\lfloor x \rfloor | x
x+y>0 | x+y\geq 0
x=3,y=4 | x=4,y=3
(3,4) | (4,3)
(3,4] | (3,4)
[0,1]\cup[2,3] | [0,3]
\emptyset | 0
A, C | A,B
B | Because
\text{(B)} | b
11010_2 | 26
3.14 | \pi
1.234.567 | 1234567
(1+\sqrt{5})/2 | \phi
\frac{\pi^2}{6} | 1.6449
-5 \frac{1}{2} | -4.5
100^\circ F | 100^\circ C
10\text{ dozen} | 120
3 \text{ square feet} | 3 feet
$5 | 6 dollars
[0,1) | 0,1
(3,4] | 3,4
[0,1] | 0,1
\text{A,D} | D
18 \text{ hours} | 18 \text{ degrees}
27\% | 27^\circ
"""


def table(text: str) -> list[list[str]]:
    return [line.split(" | ") for line in text.strip().splitlines()]


@pytest.mark.parametrize(("gold", "answer"), table(EQUAL))
def test_equal_answers(gold: str, answer: str) -> None:
    verdict = grade(gold, answer)
    assert verdict.outcome == "correct", verdict


@pytest.mark.parametrize(("gold", "answer"), table(DIFFERENT))
def test_different_answers(gold: str, answer: str) -> None:
    verdict = grade(gold, answer)
    assert verdict.outcome in ("wrong", "unparsed"), verdict


def test_the_labelled_pairs_are_all_judged_as_labelled() -> None:
    pairs = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    assert len(pairs) >= 600
    assert len(Counter(pair["kind"] for pair in pairs)) >= 30
    verdicts = [grade(pair["gold"], pair["answer"]) for pair in pairs]
    misjudged = [
        (pair, verdict)
        for pair, verdict in zip(pairs, verdicts, strict=True)
        if (verdict.outcome == "correct") != pair["equal"]
    ]
    assert misjudged == []


RULES = [
    (Rules(order="kept"), "1, 2", "2, 1", False),
    (Rules(order="kept"), "1, 2", "1, 2.0", True),
    (Rules(percent="value"), r"10\%", "0.1", True),
    (Rules(percent="value"), r"10\%", "10", False),
    (Rules(percent="number"), r"10\%", "10", True),
    (Rules(percent="number"), r"10\%", "0.1", False),
    (Rules(degrees="value"), r"180^\circ", r"\pi", True),
    (Rules(degrees="value"), r"180^\circ", "180", False),
    (Rules(degrees="number"), r"180^\circ", "180", True),
    (Rules(degrees="number"), r"180^\circ", r"\pi", False),
    (Rules(units="required"), "5 cm", "5", False),
    (Rules(units="required"), "5 cm", "50 mm", True),
    (Rules(units="required"), "5", "5 cm", True),
    (Rules(units="ignored"), "5 cm", "5 m", True),
    (Rules(units="ignored"), r"5\text{ cm}", "5 inches", True),
    (Rules(decimal_comma=True), "3.14", "3,14", False),
    (Rules(decimal_comma=True), "3,14", r"\frac{314}{100}", True),
    (Rules(decimal_comma=True), "1.234,5", "1234,5", True),
    (Rules(assignment=False), "2", "x = 2", False),
    (Rules(assignment=False), "x = 2", "x = 4/2", True),
    (Rules(unsimplified=False), r"\frac{1}{2}", r"\frac{2}{4}", False),
    (Rules(unsimplified=False), r"\frac{1}{2}", "1/2", True),
    (Rules(unsimplified=False), "2", "1 + 1", False),
    (Rules(unsimplified=False), "2", "2.0", True),
    (Rules(rounded_digits=3), r"\frac{1}{3}", "0.333", True),
    (Rules(rounded_digits=3), r"\frac{2}{3}", "0.667", True),
    (Rules(rounded_digits=3), r"\frac{2}{3}", "0.666", True),
    (Rules(rounded_digits=3), r"\frac{2}{3}", "0.668", False),
    (Rules(rounded_digits=3), r"\frac{1}{3}", "0.33", False),
    (Rules(rounded_digits=0), r"\frac{1}{3}", "0.333333333333", False),
    (Rules(rel_tol=0.01), "4.5e33", "4.53e33", True),
    (Rules(rel_tol=0.01), "4.5e33", "4.6e33", False),
    (Rules(rel_tol=0.01), "0", "0.001", False),
    (Rules(case=True), "Alice", "alice", False),
]


@pytest.mark.parametrize(("rules", "gold", "answer", "correct"), RULES)
def test_a_task_sets_the_policy(rules: Rules, gold: str, answer: str, correct: bool) -> None:
    assert (grader(rules)(gold, answer).outcome == "correct") is correct


@pytest.mark.parametrize("bad", [{"order": "sorted"}, {"percent": "maybe"}, {"units": "metric"}, {"rel_tol": 2.0}])
def test_a_rule_that_does_not_exist_is_refused_with_what_does(bad: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        Rules(**bad)  # type: ignore[arg-type]


REASONS = [
    ("5", "5", "correct", "identical"),
    ("12345678901234567890", "12345678901234567891", "wrong", "integers"),
    (r"10\%", "0.1", "correct", "percent sign as value"),
    (r"10\%", "10", "correct", "percent sign left out"),
    ("5 cm", "50 mm", "correct", "unit converted"),
    ("5 cm", "5", "correct", "unit left out"),
    ("2", "x=2", "correct", "assignment"),
    ("12_3", "12", "correct", "base left out"),
    ("(1,2)", "1,2", "correct", "brackets left out"),
    (r"\text{odd}", "even", "wrong", "words"),
    ("C", "(C)", "correct", "choice"),
    ("5", r"\frac{1}{", "unparsed", "answer:"),
    (r"\frac{1}{", "5", "unparsed", "gold:"),
    ("5", r"\frac{1}{0}", "unparsed", "division by zero"),
    ("5", r"\unknowncommand{5}", "unparsed", r"\\unknowncommand"),
    ("5", " ", "no_answer", "empty"),
    ("5", "12 3", "unparsed", "3"),
    ("5", "(" * 3000, "unparsed", ""),
    ("5", "9" * 5000 + "+1", "unparsed", "longer"),
]


@pytest.mark.parametrize(("gold", "answer", "outcome", "reason"), REASONS)
def test_the_reason_names_the_rule_or_the_obstacle(gold: str, answer: str, outcome: str, reason: str) -> None:
    verdict = grade(gold, answer)
    assert verdict.outcome == outcome
    assert reason.replace("\\\\", "\\") in verdict.reason


def test_an_empty_gold_answer_is_the_callers_mistake() -> None:
    with pytest.raises(UserError, match="gold"):
        grade(" ", "5")
    with pytest.raises(UserError, match="gold"):
        grade("", "5")


def test_integers_are_compared_exactly_whatever_their_size() -> None:
    large = "7" * 6000
    assert grade(large, large[:-1] + "8").outcome == "wrong"
    assert grade(large, "0" + large).outcome == "correct"
    assert grade(large, "+" + large + ".0").outcome == "correct"
    assert grade(large, "-" + large).outcome == "wrong"
