"""Writing a report's files so that nobody ever reads half of one."""

import os
from pathlib import Path


def replace_file(path: Path, content: bytes | str) -> Path:
    """Write `content` beside `path` under a temporary name, then rename it into place; returns `path`.

    Text is UTF-8; a lone surrogate, which a file name may hold, is written as its escape.
    """
    payload = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(payload)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
