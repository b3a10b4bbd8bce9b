r"""From the text of an answer to its tree: the one entry to reading.

A text that is words becomes `text`; a time of day becomes `time`; everything else is read as a list of formulas. What
cannot be read raises Unreadable with what it stumbled on, and never falls back on a part of the text.
"""

import re
from functools import lru_cache

from .atoms import atom
from .clean import LONGEST_READ, cleaned, has_thousands, with_money, without_thousands
from .extraction import brace_end, closed_boxes
from .formulas import listing, number
from .nodes import Node, Unreadable, negated, num
from .stream import Stream
from .tokens import END, is_word, tokens_of
from .units import SINGLE_UNITS, TWO_LETTER_UNITS, unit_of
from .vocabulary import NUMBER_WORDS, PHRASES, PLAIN_COMMANDS, PLAIN_FUNCTIONS

PLAIN_NUMBER = re.compile(r"([-+]?)\s?(\d+(?:\.\d*)?|\.\d+)")
TIME = re.compile(
    r"(?:at )?(\d{1,2})(?::([0-5]\d))?(?::([0-5]\d))?(?:\s*(?:\\text\s*\{)?\s*([ap])\.?\s?m\b\.?\s*\}?)?", re.IGNORECASE
)
ORDINAL = re.compile(r"(?:the )?(\d+)\s*(?:\^?\{?\s*(?:\\text\s*\{)?\s*(?:st|nd|rd|th)\}{0,2})", re.IGNORECASE)
WRAPPED = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|hbox|operatorname|emph|boxed|fbox)\s*(?=\{)")
SET_IN_TEXT = re.compile(
    r"\\(?:text|mbox|textbf|textit|textrm|texttt|hbox|emph)\s*\{\s*([A-Za-z]{2,}[A-Za-z' -]*)\}\.?", re.ASCII
)
JOINED = re.compile(r"\b(?:and|or)\b")
LETTERS = re.compile(r"[A-Za-z][A-Za-z' .,&/-]*")
BASED = re.compile(r"(-?)([0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)_\{?(\d\d?)\}?")
NOTED = re.compile(r"([-+]?[\d.,/]+)\s+\(\s*([A-Za-z][A-Za-z .'-]*)\)")
MEASURED = re.compile(r"([-+]?[\d.,/]+)\s*([A-Za-z]+\s*/\s*[A-Za-z]+(?:\s*\^?\s*[23])?)")
LETTERED_DIGITS = re.compile(r"\\(?:text|mathrm)\s*\{\s*([0-9A-Fa-f]+)\s*\}(?=\s*_)")
WORDS = re.compile(r"[A-Za-z]{2,}")
STOP_WORDS = frozenset(
    [
        "no",
        "on",
        "up",
        "in",
        "at",
        "by",
        "to",
        "is",
        "it",
        "go",
        "if",
        "so",
        "as",
        "we",
        "he",
        "me",
        "my",
        "am",
        "an",
        "do",
    ]
)
LABEL = re.compile(r"^(?:(?:the )?(?:final )?answer(?: is)?\s*[:=]?)\s*", re.IGNORECASE)


@lru_cache(maxsize=1 << 14)
def read(text: str, decimal_comma: bool = False, as_list: bool = False) -> Node:
    """The tree of an answer. `as_list` takes the comma of `1,234` as a list's. Raises Unreadable with what was met."""
    if len(text) > LONGEST_READ:
        raise Unreadable(f"longer than {LONGEST_READ} characters")
    written = SET_IN_TEXT.fullmatch(text.strip().strip("$").strip())
    if written and not phrase(written[1].strip()) and not JOINED.search(written[1]):
        return Node("text", (), written[1].strip())
    text = cleaned(unwrapped(with_money(text.strip())))
    if decimal_comma:
        text = re.sub(r"(?<=\d),(?=\d)", ".", text.replace(".", ""))
    elif not as_list:
        text = without_thousands(text)
    plain = PLAIN_NUMBER.fullmatch(text)
    if plain:
        return negated(number(plain[2])) if plain[1] == "-" else number(plain[2])
    if not text:
        raise Unreadable("nothing is there")
    return special(text) or formula(text)


def reads_two_ways(text: str) -> bool:
    """Whether a comma in the text may separate thousands or items."""
    return "," in text and has_thousands(cleaned(unwrapped(text.strip())))


def unwrapped(text: str) -> str:
    r"""Without the `\text{...}`, `\boxed{...}` or braces around the whole."""
    if r"\boxed" in text and (boxes := closed_boxes(text)):
        text = boxes[-1][2]
    for _ in range(8):
        text = text.strip()
        text = text.strip("$").strip() if not text.endswith("\\$") else text
        found = WRAPPED.match(text)
        start = found.end() if found else 0
        if not text.startswith("{", start) or brace_end(text, start) != len(text):
            break
        text = text[start + 1 : -1]
    return LABEL.sub("", text)


def special(text: str) -> Node | None:
    """Times, ordinals, numbers in a base above ten, and words; None when it is none of them."""
    if text[0].isdigit() or text[0] in "aAtT-":
        if clock := TIME.fullmatch(text):
            return time(clock)
        if ordinal := ORDINAL.fullmatch(text):
            return num(int(ordinal[1][:4000]))
    noted = NOTED.fullmatch(text)
    if noted and is_note(noted[2].strip()):
        return Node("unit", (formula(noted[1]),), noted[2].strip())
    measured = MEASURED.fullmatch(text)
    if measured and unit_of(measured[2]).dimension:
        return Node("unit", (formula(measured[1]),), measured[2])
    based = BASED.fullmatch(LETTERED_DIGITS.sub(r"\1", text).replace(" ", ""))
    if based:
        return Node("based", (num(0), num(int(based[3]))), (based[1] + based[2]).upper())
    return phrase(text) or (Node("text", (), text) if is_text(text) else None)


def phrase(text: str) -> Node | None:
    """Words that stand for a number or a set."""
    words = text.lower()
    if words in NUMBER_WORDS:
        return num(NUMBER_WORDS[words])
    return Node("set", (), PHRASES[words]) if words in PHRASES else None


def is_note(words: str) -> bool:
    """Whether what stands in parentheses after a number is a unit and no product of variables."""
    return words in SINGLE_UNITS or words in TWO_LETTER_UNITS or is_word(words) or " " in words or words[:2].isupper()


def time(clock: "re.Match[str]") -> Node | None:
    """A time of day in seconds, with its half of the day; None for what is only a number."""
    hours, minutes, seconds, half = clock.groups()
    if minutes is None and half is None:
        return None
    parts = [num(int(part)) for part in (hours, minutes, seconds) if part is not None]
    return Node("time", tuple(parts), half.lower() if half else "")


def is_text(text: str) -> bool:
    """Whether the whole text is words: letters and the punctuation of names, with at least one word among them."""
    if not LETTERS.fullmatch(text):
        return False
    runs = re.findall(r"[A-Za-z']+", text)
    if text.lower() in PLAIN_COMMANDS or any(run in PLAIN_FUNCTIONS for run in runs if len(run) < 5):
        return False
    long = [run for run in runs if len(run) > 1 and run.lower() not in ("and", "or")]
    if len(runs) == 1 and len(text) == 2 and text.islower():
        return text in STOP_WORDS
    return any(is_word(run) or run[0].isupper() or len(run) == 2 or run.lower() in ("why",) for run in long)


def formula(text: str) -> Node:
    """The formula or list of formulas; a text with words in it that is no formula is words."""
    try:
        stream = Stream(tokens_of(text), atom)
        tree = listing(stream)
        if stream.peek() is not END:
            raise Unreadable(f"'{stream.peek().text}' is left over")
        return tree
    except Unreadable as trouble:
        if is_prose(text):
            return Node("text", (), text)
        raise trouble


def is_prose(text: str) -> bool:
    """Whether a text that is no formula is a sentence or a name with a number in it."""
    if "\\" in WRAPPED.sub("", text) or re.search(r"[=^_{}<>*]", text.replace("{", "").replace("}", "")):
        return False
    words = [word for word in WORDS.findall(text) if is_word(word) or len(word) > 3]
    return bool(words) and len(text) < 400
