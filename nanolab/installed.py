"""Text that is on every learner's machine: the source and the documentation of installed Python."""

from __future__ import annotations

import ast
import hashlib
import itertools
import re
import sysconfig
import tokenize
import zlib
from pathlib import Path

SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_vendor"}


def python_files(libraries: bool) -> list[tuple[int, str, Path]]:
    """(crc32 of the name, name and size, file) of the standard library's source, without its tests; with
    `libraries` also of what is installed beside it. In the order of the crc32: mixed, but always alike."""
    found = {}
    roots = [Path(sysconfig.get_path("stdlib"))] + [Path(sysconfig.get_path("purelib"))] * libraries
    for number, root in enumerate(roots):
        for file in root.rglob("*.py"):
            parts = file.relative_to(root).parts
            if not SKIPPED_FOLDERS.intersection(parts[:-1]):
                name = f"{number}/{'/'.join(parts)}"
                found[name] = (zlib.crc32(name.encode("utf-8")), f"{name} {file.stat().st_size}", file)
    return sorted(found.values())


def source_code(path: Path) -> str:
    """The text of a Python file, in its own encoding; empty when it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, ValueError):
        return ""


class UnseenProse:
    """Reads the prose of files' docstrings, each paragraph only where it comes first."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def read(self, path: Path) -> str:
        """The new paragraphs of a Python file, with an empty line between them."""
        new = []
        for paragraph in itertools.chain.from_iterable(map(prose, long_strings(path))):
            key = _digest(paragraph)
            if key not in self.seen:
                self.seen.add(key)
                new.append(paragraph)
        return "\n\n".join(new)


def _digest(text: str) -> int:
    """64 bits of SHA-256: the same on every machine, as `hash()` is not."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")


def long_strings(path: Path) -> list[str]:
    """All long strings of a Python file: docstrings, and documentation kept apart from what it describes.

    Found by their triple quotes, as parsing all that is installed takes minutes; what is caught by mistake
    is no prose. Only `pydoc_data/topics.py`, the language reference, has its strings in single quotes.
    """
    try:
        source = path.read_bytes().decode("utf-8")
        if path.parent.name != "pydoc_data":
            return [match[2] for match in TRIPLE_QUOTED.finditer(source)]
        constants = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    except (OSError, SyntaxError, ValueError):
        return []
    return [value for value in constants if isinstance(value, str)]


TRIPLE_QUOTED = re.compile(r"""(\"{3}|'{3})(.*?)\1""", re.DOTALL)
NOT_PROSE = re.compile(
    r">>>|::|:\w+:|^[-=*+.#|@]|[{}<>\\|=]|_{2}|``|---|\w\("
    r"|\b(?:Args|Arguments|Returns?|Raises|Yields|Examples?|Parameters):"
)


def prose(docstring: str) -> list[str]:
    """The paragraphs of a docstring that read as English, each on one line.

    Kept: at least eight words, from a capital letter to a full stop, at least 75% letters and hardly any
    sign of code or markup.
    """
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", docstring))
    return [text for text in paragraphs if _is_prose(text)]


def _is_prose(text: str) -> bool:
    if len(text.split()) < 8 or not text[0].isupper() or text[-1] not in ".!?" or not text.isprintable():
        return False
    letters = sum(character.isalpha() for character in text)
    return letters >= 0.75 * len(text) and not NOT_PROSE.search(text)
