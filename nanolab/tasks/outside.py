"""OutsideQuestions: does the model say so when it does not know?"""

from __future__ import annotations

from nanolab.tasks.base import Conversation
from nanolab.tasks.tiny import _TinyTask
from nanolab.tinyworld import outside


class OutsideQuestions(_TinyTask):
    """What is the capital of Narnia? -> I don't know. My world is small.

    Subjects, questions and topics of the split "val" are never in "train".
    """

    default_size = 2_000

    def get_example(self, index: int) -> Conversation:
        return {"messages": outside.outside(self._rng(index), self.split)}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the reply says "I don't know" or "I do not know"."""
        return outside.says_so(completion)
