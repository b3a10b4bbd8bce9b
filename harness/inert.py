"""Text of strangers made harmless: for a terminal that would obey it, and for records that could not hold it.

What models, data files, plug-ins and servers say goes through here before a person or a Parquet file sees it.
"""

import json
import re
from typing import Any

UNSURE = re.compile(r"[^\n\t\x20-\x7e]")
"""Everything but plain ASCII, which is asked one by one whether it can be printed."""
SURROGATES = re.compile(r"[\ud800-\udfff]")
SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def inert(text: str) -> str:
    """Text with its control and direction characters spelled out, so that no terminal and no reader obeys them."""
    return UNSURE.sub(lambda found: found[0] if found[0].isprintable() else spelled_out(ord(found[0])), text)


def inert_line(text: str) -> str:
    """The same in one line, so that a stranger's words cannot pass for a line of ours."""
    return inert(text).replace("\n", "\\n").replace("\t", " ")


def json_line(value: Any) -> str:
    """A value as JSON in one line, letters of all scripts as they are and what no terminal should see escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return UNSURE.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def spelled_out(code: int) -> str:
    r"""A character as `\xNN`, `\uNNNN` or `\UNNNNNNNN`, whichever is shortest."""
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def storable(text: str) -> str:
    """Text that UTF-8 can hold: two surrogates that make a pair become their character, a lone one becomes U+FFFD."""
    if not SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_json(text: str | bytes) -> Any:
    r"""A JSON value whose texts can all be stored. Raises ValueError, nesting too deep to be read included.

    JSON may spell half a character (`\ud800`), which no file in UTF-8 can hold.
    """
    try:
        value = json.loads(text)
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        # Bytes may also hold half a character as it is, or be in UTF-16, where no escape is found.
        doubtful = SURROGATE_ESCAPE.search(raw) or b"\xed" in raw or b"\0" in raw
        return all_storable(value) if doubtful else value
    except RecursionError:
        raise ValueError("nested too deep") from None


def all_storable(value: Any) -> Any:
    """A JSON value with `storable` applied to every text in it, names of fields included."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [all_storable(each) for each in value]
    if isinstance(value, dict):
        return {storable(name): all_storable(each) for name, each in value.items()}
    return value
