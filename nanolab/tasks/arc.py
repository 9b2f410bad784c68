"""ARC: grade-school science questions, Easy and Challenge (Clark et al., 2018, arXiv:1803.05457)."""

from __future__ import annotations

from nanolab.errors import DataError
from nanolab.tasks.base import Conversation, MultipleChoice, RowTask, field, multiple_choice


class ARC(MultipleChoice, RowTask):
    """Rows with `question`, `choices` `{"text": [...], "label": [...]}` and `answerKey`.

    Most have four choices A to D; some have three or five, and some are labelled 1 to 4. The labels are
    kept as they are, so `letters` differs from one conversation to the next.
    """

    def get_example(self, index: int) -> Conversation:
        row, where = self.rows[index], f"ARC row {index}"
        question = field(row, "question", str, where)
        choices = field(row, "choices", dict, where)
        answer = field(row, "answerKey", str, where)
        texts = field(choices, "text", list, f"{where}, choices")
        labels = field(choices, "label", list, f"{where}, choices")
        try:
            return multiple_choice(question, texts, answer, labels)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
