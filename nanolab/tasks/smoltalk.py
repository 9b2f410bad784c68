"""SmolTalk: general conversations for chat tuning (Allal et al., 2025, arXiv:2502.02737)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nanolab.chat import validate_conversation
from nanolab.errors import DataError
from nanolab.tasks.base import Conversation, Task, field


class SmolTalk(Task):
    """Rows with `messages`, a list of `{"role", "content"}`, perhaps led by a system message.

    `get_example` raises DataError, naming the row, for a conversation that cannot be rendered or in which
    nobody answers. There is no right answer, so it is for training only.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], **view: Any) -> None:
        super().__init__(**view)
        self.rows = list(rows)

    def num_examples(self) -> int:
        return len(self.rows)

    def get_example(self, index: int) -> Conversation:
        where = f"SmolTalk row {index}"
        conversation = {"messages": field(self.rows[index], "messages", list, where)}
        validate_conversation(conversation, where)
        if all(message["role"] != "assistant" for message in conversation["messages"]):
            raise DataError(f"{where}: no message is from the assistant, so there is nothing to learn.")
        return conversation
