"""Your own conversations from a JSON or JSONL file, with errors that name the file and the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nanolab.chat import validate_conversation
from nanolab.errors import DataError
from nanolab.tasks.base import Conversation, Task, short

_EXAMPLE = '[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Ahoy!"}]'
_BLANKS = " \t\r\n"


class CustomJSON(Task):
    """Conversations from `filepath`, in UTF-8: one a line (JSONL), or one JSON array of them.

    A conversation is a list of messages, or `{"messages": [...]}`; blank lines are skipped. The whole file
    is checked now, not in the middle of a training run. Raises DataError at the first bad conversation;
    with `skip_bad` those are left out, and the list `skipped` says why. A file that cannot be read at all,
    or holds no good conversation, is an error either way.
    """

    def __init__(self, filepath: Path | str, skip_bad: bool = False, **view: Any) -> None:
        super().__init__(**view)
        self.conversations: list[Conversation] = []
        self.skipped: list[str] = []
        path = Path(filepath)
        for line, item in _items(path, _read(path)):
            try:
                self.conversations.append(_conversation(item, f"{path}, line {line}"))
            except DataError as error:
                if not skip_bad:
                    raise
                self.skipped.append(str(error))
        if not self.conversations:
            why = f" The first of {len(self.skipped)} bad ones:\n{self.skipped[0]}" if self.skipped else ""
            raise DataError(
                f"{path}: there is no conversation in it.{why}\nOne conversation a line, such as\n{_EXAMPLE}"
            )

    def num_examples(self) -> int:
        return len(self.conversations)

    def get_example(self, index: int) -> Conversation:
        return self.conversations[index]


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file.\nLook for a typing error, or give the whole path."
        ) from None
    except OSError as error:
        what = "is a folder, not a file" if path.is_dir() else f"cannot be read ({error.strerror})"
        raise DataError(f"{path}: {what}.\nGive the path of a .json or .jsonl file.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 text.\nSave the file again with encoding UTF-8."
        ) from error


def _items(path: Path, text: str) -> list[tuple[int, Any]]:
    """(line number, value) of each conversation. A line that is not JSON has its DataError as the value."""
    document = _parse(path, 1, text)
    if not isinstance(document, DataError):
        return _items_of_document(text, document)
    lines = [
        (number, _parse(path, number, line))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    bad = sum(isinstance(value, DataError) for _, value in lines)
    # A broken array over many lines has hardly a line that is JSON by itself; a broken JSONL file has many.
    if not lines or (bad * 2 > len(lines) and isinstance(lines[0][1], DataError)):
        return [(1, document)] if lines else []
    return lines


def _parse(path: Path, first_line: int, text: str) -> Any:
    """The JSON value of `text`, which begins at `first_line`; or the DataError that says why not."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, column = first_line + error.lineno - 1, error.colno
        hint = (
            "The file or line ends too early."
            if not text[error.pos :].strip()
            else f"Column {column} is where it breaks."
        )
        return DataError(
            f"{path}, line {line}: not valid JSON: {error.msg}.\n{hint} A good line is\n{_EXAMPLE}"
        )
    except (ValueError, RecursionError):
        return DataError(
            f"{path}, line {first_line}: not usable JSON: a number is too long, or brackets are too deep.\n"
            f"A good line is\n{_EXAMPLE}"
        )


def _items_of_document(text: str, document: Any) -> list[tuple[int, Any]]:
    """The conversations of a whole JSON document, each with the line that it begins on."""
    several = isinstance(document, list) and any(
        isinstance(item, list) or _is_wrapped(item) for item in document
    )
    if not several:
        return [] if document == [] else [(text.count("\n", 0, _skip(text, 0, _BLANKS)) + 1, document)]
    items, decoder, line, end = [], json.JSONDecoder(), 1, 0
    position = text.index("[") + 1
    for _ in document:
        position = _skip(text, position, _BLANKS + ",")
        line += text.count("\n", end, position)
        value, end = decoder.raw_decode(text, position)
        items.append((line, value))
        line += text.count("\n", position, end)
        position = end
    return items


def _conversation(item: Any, where: str) -> Conversation:
    if isinstance(item, DataError):
        raise item
    if isinstance(item, dict) and not _is_wrapped(item):
        raise DataError(
            f'{where}: expected "messages", found {short(str(sorted(item)))}.\n'
            f"A conversation is a list of messages, such as\n{_EXAMPLE}"
        )
    messages = item["messages"] if isinstance(item, dict) else item
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: expected a list of messages, found {short(json.dumps(messages))}.\nSuch as\n{_EXAMPLE}"
        )
    conversation = {"messages": messages}
    validate_conversation(conversation, where)
    if all(message["role"] != "assistant" for message in messages):
        raise DataError(
            f"{where}: no message is from the assistant, so there is nothing to learn.\nAdd its reply."
        )
    return conversation


def _is_wrapped(item: Any) -> bool:
    return isinstance(item, dict) and "messages" in item


def _skip(text: str, position: int, blanks: str) -> int:
    while text[position] in blanks:
        position += 1
    return position
