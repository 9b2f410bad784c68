"""MMLU: multiple choice over 57 subjects (Hendrycks et al., 2021, arXiv:2009.03300)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nanolab.errors import DataError
from nanolab.tasks.base import Conversation, MultipleChoice, field, multiple_choice

LETTERS = ("A", "B", "C", "D")


class MMLU(MultipleChoice):
    """Rows with `question`, four `choices`, `answer` (0 to 3) and `subject`.

    The hub nests the rows of `auxiliary_train` in a column `train`; both layouts are read.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], **view: Any) -> None:
        super().__init__(**view)
        self.rows = list(rows)

    def num_examples(self) -> int:
        return len(self.rows)

    def get_example(self, index: int) -> Conversation:
        row, where = self.rows[index], f"MMLU row {index}"
        if isinstance(row, dict) and isinstance(row.get("train"), dict):
            row = row["train"]
        question = field(row, "question", str, where)
        choices = field(row, "choices", list, where)
        answer = field(row, "answer", int, where)
        if len(choices) != len(LETTERS) or not 0 <= answer < len(LETTERS):
            raise DataError(f"{where}: answer {answer} of {len(choices)} choices, expected 0 to 3 of 4.")
        conversation = multiple_choice(question, choices, LETTERS[answer], LETTERS)
        conversation["subject"] = row.get("subject", "")
        return conversation
