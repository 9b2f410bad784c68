"""What every task shares: a sequence of conversations that can be sliced, mixed and scored.

The conventions are nanochat's, so a task written for nanochat needs little more than a new import.
Nothing here downloads: the hub's tasks are built from rows that somebody else fetched (`load_rows`).
"""

from __future__ import annotations

import copy
import json
import random
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, SupportsIndex, TypeVar, overload

from nanolab.chat import Conversation as Conversation
from nanolab.errors import ConfigError, DataError

T = TypeVar("T")


class Task:
    """A sequence of conversations, and the way to score an answer to one of them.

    A subclass gives `num_examples()` and `get_example(index)`, and `evaluate()` if answers can be scored.
    `len(task)`, `task[i]` and `for conversation in task` follow from these. `start`, `stop` and `step`
    show only a part, as `task[start:stop:step]` does; neither copies an example.
    """

    eval_type: Literal["generative", "categorical"] = "generative"
    """How an answer is read from the model: it writes a reply, or its likeliest letter is taken."""

    def __init__(self, start: int = 0, stop: int | None = None, step: int = 1) -> None:
        if step == 0:
            raise ConfigError("A task cannot be cut with step=0. Use 1 for every example, 2 for every other.")
        self._slices: tuple[slice, ...] = (slice(start, stop, step),)

    def num_examples(self) -> int:
        """How many examples there are before `start`, `stop` and `step` are applied."""
        raise NotImplementedError(f"{type(self).__name__} must define num_examples().")

    def get_example(self, index: int) -> Conversation:
        """Example `index` of the whole task, `0 <= index < num_examples()`."""
        raise NotImplementedError(f"{type(self).__name__} must define get_example().")

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether `completion`, the model's reply, is right. Never raises on junk from a model."""
        raise NotImplementedError(f"{type(self).__name__} has no right and wrong answers to score.")

    def reward(self, conversation: Conversation, completion: str) -> float:
        """What reinforcement learning gives for `completion`: 1.0 when it is right, else 0.0."""
        return float(self.evaluate(conversation, completion))

    def _indices(self) -> range:
        indices = range(self.num_examples())
        for part in self._slices:
            indices = indices[part]
        return indices

    def __len__(self) -> int:
        return len(self._indices())

    @overload
    def __getitem__(self, index: SupportsIndex) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> Task: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Conversation | Task:
        if not isinstance(index, slice):
            return self.get_example(self._indices()[index])
        view = copy.copy(self)
        view._slices = (*self._slices, index)
        return view

    def __iter__(self) -> Iterator[Conversation]:
        return map(self.get_example, self._indices())


class TaskMixture(Task):
    """Several tasks shuffled into one. A task listed twice is seen twice as often.

    The order depends on `seed` and the tasks' lengths alone. A million examples take 8 MB and about a second.
    """

    def __init__(self, tasks: Iterable[Task], seed: int = 42, **view: Any) -> None:
        super().__init__(**view)
        self.tasks = list(tasks)
        for number, task in enumerate(self.tasks, 1):
            if isinstance(task, (list, tuple, dict, str)):
                raise ConfigError(
                    f"TaskMixture: entry {number} is a {type(task).__name__}, expected a task.\n"
                    "Put a list of tasks in with a star, [a, *[b] * 3]; a single example as a slice, b[:1]."
                )
        *self._starts, total = accumulate((len(task) for task in self.tasks), initial=0)
        self._order = shuffled(total, seed)

    def num_examples(self) -> int:
        return len(self._order)

    def get_example(self, index: int) -> Conversation:
        flat = self._order[index]
        number = bisect_right(self._starts, flat) - 1
        return self.tasks[number][flat - self._starts[number]]


def shuffled(size: int, seed: int) -> array[int]:
    """The numbers 0 .. size-1 in an order that depends on `seed` alone (Fisher and Yates).

    Python promises the sequence of `random()` for every version to come, not that of `shuffle()`.
    """
    rng = random.Random(seed)
    order = array("q", range(size))
    for last in range(size - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of `items`; the same one on every Python version (see `shuffled`)."""
    return items[int(rng.random() * len(items))]


def reply_text(conversation: Conversation) -> str:
    """What the last message says: its text, or its text parts joined, without tool calls."""
    content = conversation["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


class RowTask(Task):
    """A task over rows that somebody else fetched, kept as they are and read one by one.

    `rows` with a length and numbered access, such as a memory-mapped `datasets.Dataset`, are not copied.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], **view: Any) -> None:
        super().__init__(**view)
        numbered = hasattr(rows, "__getitem__") and hasattr(rows, "__len__")
        self.rows: Any = rows if numbered else list(rows)

    def num_examples(self) -> int:
        return len(self.rows)


class MultipleChoice(Task):
    """A task whose answer is one of the conversation's `letters`."""

    eval_type = "categorical"

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether `completion` is the right letter and nothing else, blanks around it aside."""
        letter = completion.strip()
        return letter in conversation["letters"] and letter == reply_text(conversation)


def multiple_choice(
    question: str, choices: Sequence[str], answer: str, letters: Sequence[str] = ("A", "B", "C", "D")
) -> Conversation:
    """The conversation that asks `question` and answers with the letter `answer`.

    The letter stands after its choice and directly after `=` (nanochat's layout): a small model binds it
    better there, and "=A" holds the same token "A" that the reply must be, where "= A" would not.
    Raises DataError unless there is one letter for each choice and `answer` is one of the letters.
    """
    if len(choices) != len(letters) or not choices:
        raise DataError(f"{len(choices)} choices with {len(letters)} letters: {short(question)}")
    if len(set(letters)) != len(letters) or answer not in letters:
        raise DataError(f"The answer {answer!r} is not one of {list(letters)}, once each: {short(question)}")
    lines = "".join(f"- {choice}={letter}\n" for choice, letter in zip(choices, letters, strict=True))
    prompt = (
        f"Multiple Choice question: {question}\n{lines}\nRespond only with the letter of the correct answer."
    )
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "letters": list(letters)}


def short(text: str) -> str:
    """At most 80 characters of `text`, for an error message."""
    return text if len(text) <= 80 else text[:77] + "..."


def field(row: Mapping[str, Any], name: str, kind: type[T], where: str) -> T:
    """`row[name]`, checked to be a `kind`. Raises DataError that begins with `where`."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is {type(row).__name__}, expected a row with named columns.")
    if name not in row:
        raise DataError(
            f"{where} has no column {name!r}; it has {sorted(map(str, row))}.\nIs it another data set?"
        )
    value = row[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: column {name!r} is {type(value).__name__}, expected {kind.__name__}.")
    return value


def load_rows(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a `.parquet` or `.jsonl` file as the hub serves it, one dict a row.

    Raises DataError naming the file (for jsonl also the line) when it is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.\nCheck the name, or download the data first.")
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    if path.suffix == ".jsonl":
        return _jsonl_rows(path)
    raise DataError(
        f"{path}: cannot read rows from {path.suffix or 'a file without a suffix'}; use .parquet or .jsonl."
    )


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path, page_checksum_verification=True).read().to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: damaged, or not parquet ({short(str(error))}).\nDownload it again."
        ) from error


def _jsonl_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON in UTF-8 ({short(str(error))}).") from error
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: expected a row such as {{"question": ...}}.')
        rows.append(row)
    return rows
