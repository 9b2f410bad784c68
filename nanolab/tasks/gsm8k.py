"""GSM8K: grade-school word problems, worked with a calculator (Cobbe et al., 2021, arXiv:2110.14168)."""

from __future__ import annotations

import re

from nanolab.chat import calls_to_parts
from nanolab.errors import DataError
from nanolab.tasks.base import Conversation, RowTask, field, reply_text

_ANSWER = re.compile(r"####[ \t]*([+-]?)[ \t]*\$?([0-9][0-9,]*)?(?:\.([0-9]*))?")


def extract_answer(text: str) -> str | None:
    """The number after the first `####`, in one form: "#### 1,234.50" -> "1234.5". None without a number.

    As in GSM8K's own scorer the first `####` counts: a later one cannot mend a wrong answer.
    """
    match = _ANSWER.search(text)
    if match is None or not (match[2] or match[3]):
        return None
    whole = (match[2] or "").replace(",", "").lstrip("0") or "0"
    decimals = (match[3] or "").rstrip("0")
    number = f"{whole}.{decimals}" if decimals else whole
    return f"-{number}" if match[1] == "-" and number != "0" else number


class GSM8K(RowTask):
    """Rows with `question` and `answer`; calls such as `<<48/2=24>>` become calculator parts.

    `get_example` raises DataError for a row that lacks a column, or whose answer has no `#### number`.
    """

    def get_example(self, index: int) -> Conversation:
        where = f"GSM8K row {index}"
        question = field(self.rows[index], "question", str, where)
        answer = field(self.rows[index], "answer", str, where)
        if extract_answer(answer) is None:
            raise DataError(f"{where}: the answer must end with a line such as '#### 72'.")
        return {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": calls_to_parts(answer)},
            ]
        }

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the number after `####` is the right one; how it was reached is not looked at."""
        given = extract_answer(completion)
        return given is not None and given == extract_answer(reply_text(conversation))
