r"""Finding the final answer in a chain of thought, and saying which rule found it.

A rule is a function from the text to an answer or None. Rules run in the order given and the first that finds something
wins; within a rule the last match wins, because a chain of thought may change its mind. A text that a limit cut is read
by rules that need the answer's end to be visible: a closed brace, an ended line. Nothing here reads the mathematics.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

LONGEST_ANSWER = 4096
"""Characters; what a rule finds beyond that is not an answer but a text."""
MOST_PHRASES = 20
MOST_TEXT = 400_000
"""Characters of a completion's end that are searched."""

BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
OPEN_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*[^\s{}]{0,40}$")
BARE_BOX = re.compile(r"(?:\\[A-Za-z]+|[^\s\\{}$.,;]+)")
JOINER = re.compile(r"(?:[\s,;$]|\\[,;!]|\\q?quad|\\text\s*\{\s*(?:and|or)\s*\}|\band\b|\bor\b)*")
HASHES = re.compile(r"^[ \t>*]*####[ \t]*(\S[^\n]*?)[ \t]*$", re.MULTILINE)
PHRASE = re.compile(
    r"\b(?:final\s+)?(?:answer|result)\b\**\s*"
    r"(?:(?:to|of|for)\b[^.\n:]{0,80}?)?"
    r"(?:\bis\b\s*(?:therefore|thus|then|simply|just|given\s+by|equal\s+to)?\s*[:=]?|\bare\b\s*:?|[:=])[\s*]*",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(
    r"(?<=[^\s])(?:\.(?=\s|\*|$)|[!?](?=\s|$)|[,;]?\s+(?:because|since|which|where(?!as)|so\s+that|so|as|I\s+hope)\b)"
)
ABBREVIATED = re.compile(r"(?:\b(?:[ap]\.m|sq|cu|in|ft|lb|lbs|oz|hr|min|sec|approx|[A-Z]))$", re.IGNORECASE)
NUMBER = re.compile(
    r"(?<![\w.])(?<![\w)\]}]-)(?<![\w)\]}] -)(?<!\d,)"
    r"[-−]?(?:\\?[$€£])?[-−]?(?:\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)|\d+)?(?:(?<=\d)\.\d+|(?<![\d.])\.\d+)?(?:(?<=\d)[eE][-+]?\d+)?"
    r"(?:(?<=\d)/\d+(?![\d/]))?(?:(?<=\d)\s?\\?%)?"
)
CHOICE_PHRASE = re.compile(
    r"\b(?:answer|option|choice)\b\**\s*(?:is|:|=)?[\s*:]*(?:option|choice)?[\s*$]*"
    r"(?:\\(?:text|mathrm|textbf|mathbf)\s*\{)?\s*(?:\(([A-Ea-e])\)|([A-E])(?![\w'’]))",
    re.IGNORECASE,
)
CHOICE_ALONE = re.compile(
    r"^[ \t*$]*(?:\\(?:text|mathrm|textbf|mathbf)\s*\{)?\s*(?:\(([A-E])\)|([A-E])[.):]?)\s*\}?[ \t*$.]*$", re.MULTILINE
)
CHOICE_IN = re.compile(r"^(?:\s|\\(?:text|mathrm|textbf|mathbf|mathcal)\b|[{$(*])*([A-Ea-e])(?:[)}.:\s$*]|\\|$)")


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer as it stands in the text, and the name of the rule that found it."""

    answer: str
    rule: str


Rule = Callable[[str], str | None]


def brace_end(text: str, start: int) -> int | None:
    r"""The index after the brace that closes the one at `start`, or None; `\{` and `\}` do not count."""
    depth, at = 0, start
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif letter == "{":
            depth += 1
        elif letter == "}":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return None


def brace_ends(text: str) -> dict[int, int]:
    """For every brace that is closed, the index after the one that closes it; one pass whatever the nesting."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for brace in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            ends[opened.pop()] = brace.end()
    return ends


def closed_boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Every closed `\boxed{...}`, `\fbox{...}` and `\boxed 5` as (start, end, content), in order."""
    boxes: list[tuple[int, int, str]] = []
    past, ends = -1, brace_ends(text) if BOX.search(text) else {}
    for found in BOX.finditer(text):
        if found.start() < past:
            continue
        if text.startswith("{", found.end()):
            end = ends.get(found.end())
            if end is None:
                # What follows an unclosed brace is inside it, except another box.
                continue
            boxes.append((found.start(), end, text[found.end() + 1 : end - 1]))
            past = end
        elif bare := BARE_BOX.match(text, found.end()):
            boxes.append((found.start(), bare.end(), bare[0]))
    return boxes


def unwrapped(content: str) -> str:
    r"""The inside of a box whose whole content is another box."""
    inner = closed_boxes(content)
    return inner[0][2] if len(inner) == 1 and inner[0][:2] == (0, len(content)) else content


def boxed(text: str) -> str | None:
    r"""The last closed box that is not empty; boxes joined by a comma, "and" or "or" are one answer in parts."""
    boxes = [box for box in closed_boxes(text) if box[2].strip()]
    if not boxes:
        return None
    parts = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box[1] : parts[0][0]]
        if len(between) > 60 or not between.strip(" $\n") or not JOINER.fullmatch(between):
            break
        parts.insert(0, box)
    return ", ".join(unwrapped(part[2].strip()) for part in parts)


def boxed_ended(text: str) -> str | None:
    r"""The same, where the box's end is visible: `\boxed 4` at the very end may have been going to be 42."""
    return boxed(OPEN_BOX.sub("", text))


def hashes(text: str) -> str | None:
    """What stands on the last line that begins with `####`."""
    found = HASHES.findall(text)
    return found[-1] if found else None


def hashes_ended(text: str) -> str | None:
    """The same, where the line's end is visible."""
    return hashes(text[: text.rfind("\n") + 1])


def tidy(found: str) -> str:
    """Without Markdown emphasis, quotation marks and the colon or full stop around it."""
    return found.strip().strip('*`"“”').strip().removesuffix(".").strip("* ").strip()


def sentence(text: str, start: int, must_end: bool) -> str | None:
    """From `start` to the end of the sentence or line; formulas between dollars are never split."""
    line_end = text.find("\n", start)
    line = text[start : line_end if line_end >= 0 else len(text)][:LONGEST_ANSWER]
    if not line.strip("$[( \\") and line_end >= 0:
        return displayed(text, start)
    spans = [found.span() for found in re.finditer(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]", line)]
    for end in SENTENCE_END.finditer(line):
        inside = any(first < end.start() < last for first, last in spans)
        if must_end and end[0] == "." and start + end.end() == len(text) and line[: end.start()][-1:].isdigit():
            continue
        if not inside and not (
            end[0] == "." and ABBREVIATED.search(line[max(0, end.start() - 10) : end.start()]) and end.end() < len(line)
        ):
            return tidy(line[: end.start()])
    return None if must_end and line_end < 0 else tidy(line)


def displayed(text: str, start: int) -> str | None:
    r"""A displayed formula on the lines after `start`: `$$ ... $$` or `\[ ... \]`."""
    found = re.compile(r"\s*(?:\$\$(.{1,4096}?)\$\$|\\\[(.{1,4096}?)\\\])", re.DOTALL).match(text, start)
    return tidy(found[1] or found[2]) if found else None


def phrase(text: str, must_end: bool = False) -> str | None:
    """What follows the last "the answer is" or "answer:", to the end of its sentence."""
    for found in reversed(list(PHRASE.finditer(text))[-MOST_PHRASES:]):
        answer = sentence(text, found.end(), must_end)
        if answer:
            return answer
    return None


def phrase_ended(text: str) -> str | None:
    """The same, where the sentence's or the line's end is visible."""
    return phrase(text, must_end=True)


def last_number(text: str) -> str | None:
    """The last number in the text, with its sign, thousands separators, fraction bar or percent sign."""
    for start, end in words_with_digits_from_the_end(text):
        found = None
        # A number holds no space before its last digit, so it begins in the word of that digit.
        for match in NUMBER.finditer(text, start):
            if match.start() >= end:
                break
            if any(letter.isdigit() for letter in match[0]):
                found = match[0]
        if found:
            return found
    return None


def words_with_digits_from_the_end(text: str) -> Iterator[tuple[int, int]]:
    """Where the words that hold a digit begin and end, the last word first."""
    place = len(text) - 1
    while place >= 0:
        if not text[place].isdigit():
            place -= 1
            continue
        start = end = place
        while start > 0 and not text[start - 1].isspace():
            start -= 1
        while end < len(text) and not text[end].isspace():
            end += 1
        yield start, end
        place = start - 1


def letter_of(found: "re.Match[str]") -> str:
    """The letter in whichever group matched."""
    return next(group for group in found.groups() if group).upper()


def choice_boxed(text: str) -> str | None:
    """The letter that the last box begins with."""
    content = boxed(text)
    found = CHOICE_IN.match(content) if content else None
    return found[1].upper() if found else None


def choice_phrase(text: str) -> str | None:
    """The letter after the last "the answer is" or "option"; in the lower case only in parentheses."""
    found = [each for each in CHOICE_PHRASE.finditer(text) if each[1] or each[2].isupper()]
    return letter_of(found[-1]) if found else None


def choice_alone(text: str) -> str | None:
    """The letter that stands alone on the last such line."""
    found = list(CHOICE_ALONE.finditer(text))
    return letter_of(found[-1]) if found else None


EXPLICIT: tuple[Rule, ...] = (boxed, hashes, phrase)
EXPLICIT_CUT: tuple[Rule, ...] = (boxed_ended, hashes_ended, phrase_ended)
WITH_LAST_NUMBER: tuple[Rule, ...] = (*EXPLICIT, last_number)
CHOICE: tuple[Rule, ...] = (choice_boxed, choice_phrase, choice_alone)


def find_answer(text: str, rules: Sequence[Rule] = EXPLICIT) -> Extraction | None:
    r"""The first answer that one of `rules` finds in a completion, with the rule's name; None when none does.

    Any text is accepted and nothing is raised; of a very long one only the end is searched. An answer of more than
    4,096 characters does not count.
    """
    text = text[-MOST_TEXT:]
    for rule in rules:
        answer = rule(text)
        if answer and answer.strip() and len(answer) <= LONGEST_ANSWER:
            return Extraction(answer.strip(), rule.__name__)
    return None


def answer_by(text: str, rules: Sequence[Rule]) -> str | None:
    """Only the answer of `find_answer`."""
    found = find_answer(text, rules)
    return found.answer if found else None


def extract_explicit(text: str) -> str | None:
    r"""The answer that a finished completion states: its last `\boxed{...}`, `#### 42` or "the answer is ...".

    Returns None when it states none; there is no guess.
    """
    return answer_by(text, EXPLICIT)


def extract_explicit_cut(text: str) -> str | None:
    r"""The same for a completion that a limit cut: only an answer whose end is visible counts."""
    return answer_by(text, EXPLICIT_CUT)


def extract_number(text: str) -> str | None:
    """What a finished completion states, or else the last number in it; None when it has no number."""
    return answer_by(text, WITH_LAST_NUMBER)


def extract_choice(text: str) -> str | None:
    """The letter A to E that a finished completion chooses: in a box, after "the answer is", or alone on a line."""
    return answer_by(text, CHOICE)
