"""From characters to tokens: numbers, commands, letters, words, separators.

A run of letters is a function, a known constant, a word, or a product of variables; that is decided here once, by the
words the vocabulary knows and by whether the run looks like a word. Words are never taken apart.
"""

import re
from typing import NamedTuple

from .extraction import brace_end
from .nodes import Unreadable
from .units import TWO_LETTER_UNITS, UNITS
from .vocabulary import PLAIN_COMMANDS, PLAIN_FUNCTIONS, SEPARATORS, TEXT_MACROS

MOST_TOKENS = 2000

TOKEN = re.compile(
    r"(?P<num>\d{1,3}(?: \d{3})+(?![\d.])|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)"
    r"|(?P<begin>\\begin\s*\{(\w+)\*?\}(?:\s*\{[clr|\s]*\})?)"
    r"|(?P<cmd>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+)|(?P<op><=|>=|!=|==|\*\*|\S)"
)
FUNCTION_RUN = re.compile(r"(arc(?:sin|cos|tan)|sin|cos|tan|cot|sec|csc|ln|log|exp|sqrt|pi)([a-z]?)")
MODULES = re.compile(r"\b(?:np|numpy|math|sympy|sp)\.(?=[a-z])")
UNION = re.compile(r"(?<=[)\]}])\s*[Uu]\s*(?=[(\[{\\])")
PLAIN_TIMES = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)|(?<=\d)\s+[xX]\s+(?=\d)")
UNIT_PARTS = frozenset(("sq", "cu", "per", "of"))
FUNCTION_UNITS = frozenset(("min", "sec"))
VOWELS, ALPHABET = frozenset("aeiouyAEIOUY"), "abcdefghijklmnopqrstuvwxyz"


class Token(NamedTuple):
    """A piece of text: kind is num, cmd, sym, text, sep, begin or op."""

    kind: str
    text: str
    spaced: bool = False


END = Token("end", "")


def is_word(run: str) -> bool:
    """Whether a run of letters is a word rather than a product of variables such as `abc` or `mn`."""
    if run.lower() in UNITS or run.lower().removesuffix("s") in UNITS:
        return len(run) > 2 or run in TWO_LETTER_UNITS
    if len(run) < 3 or run.lower() in ALPHABET:
        return False
    vowels = sum(letter in VOWELS for letter in run)
    return 0 < vowels < len(run)


def word_tokens(run: str, spaced: bool, before: Token) -> list[Token]:
    """The tokens of one run of letters."""
    if run in FUNCTION_UNITS and before.kind == "num":
        return [Token("text", run, spaced)]
    if run in PLAIN_FUNCTIONS:
        return [Token("cmd", "\\" + PLAIN_FUNCTIONS[run], spaced)]
    if run in PLAIN_COMMANDS or run.lower() == "infinity":
        return [Token("cmd", PLAIN_COMMANDS.get(run, r"\infty"), spaced)]
    if run.lower() in SEPARATORS:
        return [Token("sep", run.lower(), spaced)]
    if len(run) > 1 and (split := FUNCTION_RUN.fullmatch(run)):
        rest = [Token("sym", split[2])] if split[2] else []
        return [Token("cmd", "\\" + split[1], spaced), *rest]
    after_number = before.kind == "num" or before.text in ("}", ")", r"\pi")
    if (run in TWO_LETTER_UNITS and after_number) or (
        run in UNIT_PARTS and (after_number or before.kind == "text" or before.text == "(")
    ):
        return [Token("text", run, spaced)]
    fresh = spaced or before is END or before.kind in ("num", "sep", "text") or before.text in "(/"
    if len(run) > 2 and fresh and is_word(run):
        return [Token("text", run, spaced)]
    return [Token("sym", run[0], spaced), *(Token("sym", letter) for letter in run[1:])]


def text_tokens(content: str, macro: str) -> list[Token]:
    r"""The tokens of a `\text{...}`: a separator, a number, a letter or words."""
    content = content.strip()
    if content.lower().strip(" ,") in ("and", "or"):
        return [Token("sep", content.lower().strip(" ,"), True)]
    if macro in (r"\mathrm", r"\rm", r"\operatorname") and (len(content) == 1 or content in PLAIN_FUNCTIONS):
        return word_tokens(content, True, END)
    if re.fullmatch(r"[\d.,/ ]+", content):
        return tokens_of(content)
    return [Token("text", content, True)] if content else []


def tokens_of(text: str) -> list[Token]:
    """The tokens of a cleaned text. Raises Unreadable on an unclosed macro or too many tokens."""
    text = UNION.sub(r" \\cup ", MODULES.sub("", text))
    text = PLAIN_TIMES.sub(r" \\times ", text)
    tokens: list[Token] = []
    at, end, before = 0, 0, END
    while found := TOKEN.search(text, at):
        spaced, at, kind, piece = found.start() > end, found.end(), found.lastgroup or "op", found[0]
        if kind == "cmd" and piece in TEXT_MACROS:
            at = add_macro(tokens, text, found)
        elif kind == "word":
            tokens += word_tokens(piece, spaced, before)
        elif kind == "begin" or found["begin"]:
            tokens.append(Token("begin", found[3], spaced))
        elif piece in ",;":
            tokens.append(Token("sep", piece, spaced))
        else:
            tokens.append(Token(kind, piece, spaced))
        end, before = at, tokens[-1] if tokens else END
        if len(tokens) > MOST_TOKENS:
            raise Unreadable(f"more than {MOST_TOKENS} tokens")
    return tokens


def add_macro(tokens: list[Token], text: str, found: "re.Match[str]") -> int:
    r"""Append what a `\text{...}` holds; returns where reading goes on."""
    start = found.end() + (len(text) - found.end() - len(text[found.end() :].lstrip()))
    if not text.startswith("{", start):
        if found[0] in (r"\rm", r"\mathrm", r"\operatorname"):
            return found.end()
        raise Unreadable(f"{found[0]} without braces")
    end = brace_end(text, start)
    if end is None:
        raise Unreadable(f"{found[0]} is not closed")
    tokens += text_tokens(text[start + 1 : end - 1], found[0])
    return end
