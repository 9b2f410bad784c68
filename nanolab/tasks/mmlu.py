"""MMLU: multiple choice over 57 subjects (Hendrycks et al., 2021, arXiv:2009.03300)."""

from __future__ import annotations

from nanolab.errors import DataError
from nanolab.tasks.base import Conversation, MultipleChoice, RowTask, field, multiple_choice

LETTERS = ("A", "B", "C", "D")


class MMLU(MultipleChoice, RowTask):
    """Rows with `question`, four `choices`, `answer` (0 to 3) and `subject`.

    The hub nests the rows of `auxiliary_train` in a column `train`; both layouts are read.
    """

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
