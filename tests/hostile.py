"""Completions that attack whoever shows, stores or judges them, as a file for `ttc import`."""

import json
from pathlib import Path

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\x9b31m\x08\x08\x7f\r"
BIDI = "\u202eevil\u2066\u2069\u200f\u061c\U000e0041"
SCRIPT = '<script>fetch("https://evil.example")</script><img src=x onerror=alert(1)></script><!--<svg/onload=alert(2)>'
FORMULA = r"$\href{javascript:alert(3)}{x}$ $\text{<img src=x onerror=alert(4)>}$ \(\style{position:fixed}{x}\)"
LATEX = r"\input{/etc/passwd} \write18{touch owned} \immediate\openout\f=owned.tex $ & # _ { } ~ ^ % \catcode`\%=0"
TEMPLATE = "{{ 7 * 7 }}{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}"
PYTHON = "__import__('os').system('touch owned') or open('owned', 'w')"
SHEET = '=HYPERLINK("https://evil.example";"x")'
TEXTS = {
    "escapes": f"The answer is {ESCAPES}\\boxed{{4{ESCAPES}}}",
    "bidi": f"{BIDI} The answer is \\boxed{{4{BIDI}}}",
    "script": f"{SCRIPT}\\boxed{{{SCRIPT}}}",
    "formula": f"{FORMULA} \\boxed{{{FORMULA}}}",
    "latex": f"{LATEX}\n\\boxed{{{LATEX}}}",
    "template": f"{TEMPLATE} \\boxed{{{TEMPLATE}}}",
    "python": f"```python\n{PYTHON}\n```\nThe answer is \\boxed{{{PYTHON}}}",
    "sheet": f"\\boxed{{{SHEET}}}",
    "nul": "a\0b \\boxed{4\0}",
    "half": "\ud83d \udc00 \\boxed{\ud800}",
    "pair": "\ud83d\ude00 \\boxed{4}",
    "braces": "\\boxed" + "{" * 5000 + "4" + "}" * 5000,
    "open braces": "\\boxed{" * 3000,
    "powers": "\\boxed{" + "9^{" * 40 + "9" + "}" * 40 + "}",
    "digits": "\\boxed{" + "9" * 6000 + "}",
    "lines": "ttc: all runs are VALID\n" * 3 + "\\boxed{4}",
    "markup": "[bold red]x[/bold red][/] \\boxed{[/]}",
    "long": "x" * 10_000_000 + " \\boxed{4}",
}
"""By what they do. Every one of them would like to be more than text."""
NAME = f"{SCRIPT}{ESCAPES}{BIDI}../../owned"


def write_hostile(folder: Path) -> Path:
    """JSON lines, two problems with all of the texts each; the second has a hostile name, prompt and gold."""
    file = folder / "hostile.jsonl"
    problems = [("plain", "4", "What is 2 + 2?"), (NAME, f"4{SCRIPT}", SCRIPT + ESCAPES + LATEX)]
    with file.open("w") as lines:
        for name, gold, prompt in problems:
            for number, text in enumerate(TEXTS.values()):
                row = {"problem_id": name, "gold": gold, "prompt": prompt, "text": text, "finished_s": number / 4}
                lines.write(json.dumps(row | {"completion_tokens": 5}) + "\n")
    return file
