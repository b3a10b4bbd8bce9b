r"""Worked examples for `num_fewshot`: written for this package, so that no test set can hold one of them.

Each ends in `\boxed{}`, the form that the instruction of `prompts.py` asks for.
"""

from harness.errors import UserError

Example = tuple[str, str]
"""A question and its worked solution."""

GRADE_SCHOOL: tuple[Example, ...] = (
    (
        "A bakery fills 7 trays with 12 rolls each and sells 59 rolls before noon. How many rolls are left at noon?",
        "The bakery makes 7 * 12 = 84 rolls.\nAfter noon 84 - 59 = 25 rolls are left.\nThe answer is $\\boxed{25}$.",
    ),
    (
        "Ines reads 18 pages on Monday and twice as many on Tuesday. Her book has 90 pages. How many pages has she "
        "still to read?",
        "On Tuesday she reads 2 * 18 = 36 pages.\nIn both days she reads 18 + 36 = 54 pages.\n"
        "She still has to read 90 - 54 = 36 pages.\nThe answer is $\\boxed{36}$.",
    ),
    (
        "A ferry ticket costs $9 for an adult and $4 for a child. How many dollars do 3 adults and 5 children pay?",
        "The adults pay 3 * 9 = 27 dollars.\nThe children pay 5 * 4 = 20 dollars.\n"
        "Together they pay 27 + 20 = 47 dollars.\nThe answer is $\\boxed{47}$.",
    ),
    (
        "Out of 240 seedlings, a quarter did not sprout and 15 more were eaten by snails. How many seedlings are left?",
        "A quarter of 240 is 240 / 4 = 60.\nThat leaves 240 - 60 = 180 seedlings.\n"
        "After the snails 180 - 15 = 165 are left.\nThe answer is $\\boxed{165}$.",
    ),
    (
        "A printer makes 16 pages per minute. It has to print 5 copies of a report of 48 pages. How many minutes does "
        "this take?",
        "The copies have 5 * 48 = 240 pages.\nAt 16 pages per minute they take 240 / 16 = 15 minutes.\n"
        "The answer is $\\boxed{15}$.",
    ),
    (
        "Rosa cuts a rope of 5 meters into pieces of 40 centimeters. How many whole pieces does she get?",
        "The rope is 5 * 100 = 500 centimeters long.\n500 / 40 = 12.5, so there are 12 whole pieces.\n"
        "The answer is $\\boxed{12}$.",
    ),
    (
        "A coat costs $80. Its price is raised by 10%, and later the new price is lowered by $13. How many dollars "
        "does the coat cost now?",
        "10% of 80 is 8, so the price rises to 80 + 8 = 88 dollars.\nThen it falls to 88 - 13 = 75 dollars.\n"
        "The answer is $\\boxed{75}$.",
    ),
    (
        "Three friends share a box of 50 chocolates. Each takes 14. How many chocolates remain in the box?",
        "Together they take 3 * 14 = 42 chocolates.\nIn the box remain 50 - 42 = 8.\nThe answer is $\\boxed{8}$.",
    ),
)

COMPETITION: tuple[Example, ...] = (
    (
        "The line $y = 3x + b$ passes through the point $(4, 5)$. What is $b$?",
        "Substituting the point gives $5 = 3 \\cdot 4 + b$, so $b = 5 - 12 = -7$.\nThe final answer is $\\boxed{-7}$.",
    ),
    (
        "How many three-digit numbers have digits that are all odd and all different?",
        "The odd digits are $1, 3, 5, 7, 9$. There are $5$ choices for the first digit, then $4$ for the second and "
        "$3$ for the third, which makes $5 \\cdot 4 \\cdot 3 = 60$.\nThe final answer is $\\boxed{60}$.",
    ),
    (
        "Simplify $\\frac{x^2 - 9}{x^2 + 5x + 6}$ for all $x$ where it is defined.",
        "We factor: $x^2 - 9 = (x - 3)(x + 3)$ and $x^2 + 5x + 6 = (x + 2)(x + 3)$. Cancelling $x + 3$ leaves "
        "$\\frac{x - 3}{x + 2}$.\nThe final answer is $\\boxed{\\frac{x - 3}{x + 2}}$.",
    ),
    (
        "A right triangle has legs of length $2$ and $6$. Find the length of its hypotenuse in simplest radical form.",
        "By the Pythagorean theorem its square is $2^2 + 6^2 = 40$, so the length is $\\sqrt{40} = 2\\sqrt{10}$.\n"
        "The final answer is $\\boxed{2\\sqrt{10}}$.",
    ),
    (
        "Find the remainder when $7^{50}$ is divided by $5$.",
        "Modulo $5$ we have $7 \\equiv 2$ and $2^4 = 16 \\equiv 1$. As $50 = 4 \\cdot 12 + 2$, "
        "$7^{50} \\equiv 2^2 = 4$.\nThe final answer is $\\boxed{4}$.",
    ),
    (
        "Two fair six-sided dice are rolled. What is the probability that the sum is at least $10$?",
        "The sum is $10$ in $3$ ways, $11$ in $2$ ways and $12$ in $1$ way: $6$ of the $36$ equally likely outcomes, "
        "so the probability is $\\frac{6}{36} = \\frac{1}{6}$.\nThe final answer is $\\boxed{\\frac{1}{6}}$.",
    ),
)


def shots(task: str, examples: tuple[Example, ...], num_fewshot: int) -> tuple[Example, ...]:
    """The first `num_fewshot` of the examples. Raises UserError where there are not so many."""
    if not 0 <= num_fewshot <= len(examples):
        raise UserError(f"{task}: num_fewshot must be 0 to {len(examples)}, got {num_fewshot}")
    return examples[:num_fewshot]
