"""SmolTalk: general conversations for chat tuning (Allal et al., 2025, arXiv:2502.02737)."""

from __future__ import annotations

from nanolab.chat import validate_conversation
from nanolab.errors import DataError
from nanolab.tasks.base import Conversation, RowTask, field


class SmolTalk(RowTask):
    """Rows with `messages`, a list of `{"role", "content"}`, perhaps led by a system message.

    `get_example` raises DataError, naming the row, for a conversation that cannot be rendered or in which
    nobody answers. There is no right answer, so it is for training only.
    """

    def get_example(self, index: int) -> Conversation:
        where = f"SmolTalk row {index}"
        conversation = {"messages": field(self.rows[index], "messages", list, where)}
        validate_conversation(conversation, where)
        if all(message["role"] != "assistant" for message in conversation["messages"]):
            raise DataError(f"{where}: no message is from the assistant, so there is nothing to learn.")
        return conversation
