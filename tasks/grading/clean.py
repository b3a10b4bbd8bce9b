r"""What a text loses before it is read: dollars, spacing, sizes of brackets, thousands separators, a last full stop.

Nothing here changes what the answer means. A character that is none of the reader's business stays and is stumbled on
there, so that `4\x002` never becomes 42.
"""

import re
import unicodedata

from .vocabulary import UNICODE

LONGEST_READ = 4096
"""Characters of a formula that are read; longer ones are only compared as integers or as text."""

SPACING = re.compile(
    r"\\(?:left|right|big|Big|bigg|Bigg|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|middle|limits|displaystyle|textstyle|nolimits)"
    r"(?![A-Za-z])\.?|\\(?:qquad|quad|hfill|enspace|thinspace|nobreakspace|noindent|par)(?![A-Za-z])|\\[!,;:> ]"
    r"|\\phantom(?![A-Za-z{])|\\(?:hspace|vspace|phantom|hphantom|label|tag)\*?\{[^{}]*\}|~"
)
NEGATIVE_SPACE = re.compile(r"(?<![A-Za-z])\\!|\\!(?![A-Za-z])")
UNESCAPED = re.compile(r"(?<!\\)\$")
MONEY = re.compile(r"(?<!\\)\$(?=\s?[\d.])")
WRAPPERS = re.compile(r"\\[()\[\]]|(?<!\\)\$")
TIGHT_COMMA = re.compile(r"(?<=\d)\s*(?:\{,\}|,\s*\\!|\\!\s*,|\\,(?=\d{3}(?!\d)))\s*(?:\\!)?\s*(?=\d{3}(?!\d))")
DECIMAL_BRACES = re.compile(r"(?<=\d)\{,\}(?=\d)")
FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
BINOMIALS = re.compile(r"\\[dt]binom(?![A-Za-z])")
SPACES = re.compile(r"\s+")
THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d]|,\d)")
BRACKETED = re.compile(r"[(\[]|\\\{")


def cleaned(text: str) -> str:
    """The text without what carries no meaning."""
    if not text.isascii():
        text = text.translate(UNICODE)
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
    if "\\" in text or "$" in text or "{" in text or "~" in text:
        text = latex_cleaned(text)
    text = SPACES.sub(" ", text).strip()
    while text and (text[-1] in ".,;:" and not text.endswith(("a.m.", "p.m.", "\\,", "\\;", "\\:"))):
        text = text[:-1].rstrip()
    return text.lstrip(", ")


def with_money(text: str) -> str:
    """A dollar sign without a partner before a number is money, not mathematics."""
    if "$" not in text or len(UNESCAPED.findall(text)) % 2 == 0:
        return text
    return MONEY.sub(r"\\$", text, count=1)


def latex_cleaned(text: str) -> str:
    """The same for what only LaTeX has."""
    text = TIGHT_COMMA.sub("", text)
    text = DECIMAL_BRACES.sub(".", text).replace("{,}", ",")
    text = WRAPPERS.sub(" ", text.replace("\\\\", "\\cr ") if "\\\\" in text else text)
    text = SPACING.sub(" ", NEGATIVE_SPACE.sub("", text))
    text = FRACTIONS.sub(r"\\frac", text)
    return BINOMIALS.sub(r"\\binom", text)


def without_thousands(text: str) -> str:
    """`1,234` as 1234, outside brackets, where it could as well be a list."""
    if "," not in text:
        return text
    if not BRACKETED.search(text):
        return THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    return text


def has_thousands(text: str) -> bool:
    """Whether a comma in the text may separate thousands or the items of a list."""
    return "," in text and bool(THOUSANDS.search(text)) and not BRACKETED.search(text)
