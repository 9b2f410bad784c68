"""From text and conversations to batches of token ids, at a position that can be saved and resumed.

`PackedBatches` cuts a text source (`corpus.text_source` finds one by name) into rows for pretraining,
`ConversationBatches` a task's conversations into rows with a loss mask. Both go round for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from nanolab.chat import render_conversation
from nanolab.corpus import ListSource, TextSource
from nanolab.errors import ConfigError, DataError
from nanolab.tasks.base import Task, shuffled

if TYPE_CHECKING:
    from nanolab.tokenizer import Tokenizer

ENCODE_AT_ONCE = 32  # documents; what is encoded but not yet used is saved with the position
PACKING_BUFFER = 64  # conversations to choose from when a row is filled

Batch = tuple[Tensor, Tensor]


class PackedBatches:
    """Endless batches `(inputs, targets)`, int64 `(rows, context)`, cut from one stream of documents.

    The stream is every document with bos before it, one after the other, round and round. Rows follow
    each other in it and targets are the inputs one token later, so that each token of the stream except
    the very first is a target exactly once. `seed` draws a new order of the groups for each epoch; without
    it they come as they are stored. Raises DataError when the source holds no text.
    """

    def __init__(
        self,
        source: TextSource | Sequence[str],
        tokenizer: Tokenizer,
        rows: int,
        context: int,
        *,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.source = source if isinstance(source, TextSource) else ListSource(source)
        self.tokenizer, self.rows, self.context = tokenizer, rows, context
        self.seed, self.device = seed, device
        self.epoch = 0
        self._group = 0  # how many groups of this epoch are done
        self._document = 0  # how many documents of the current group are done
        self._buffer: list[int] = []
        self._loaded: tuple[int, list[str]] | None = None
        self._order: tuple[int, Sequence[int]] | None = None

    def __iter__(self) -> PackedBatches:
        return self

    def __next__(self) -> Batch:
        size, last_growth = self.rows * self.context, self.epoch
        while len(self._buffer) < size + 1:
            if self._read_documents():
                last_growth = self.epoch
            elif self.epoch > last_growth + 1 or not self.source.num_groups():
                raise DataError(
                    f"{self.source.name} holds no text to train on: every document is empty.\n"
                    "Choose another folder, or check that the files are what you think they are."
                )
        stream = torch.tensor(self._buffer[: size + 1], dtype=torch.int64, device=self.device)
        del self._buffer[:size]
        return stream[:-1].view(self.rows, self.context), stream[1:].view(self.rows, self.context)

    def _read_documents(self) -> bool:
        """Encode the next few documents into the buffer and move on. False if they gave no token."""
        if not self.source.num_groups():
            return False
        documents = self._current_group()
        some = [text for text in documents[self._document : self._document + ENCODE_AT_ONCE] if text]
        bos, before = self.tokenizer.get_bos_token_id(), len(self._buffer)
        for ids in self.tokenizer.encode(some):
            self._buffer += [bos, *ids]
        self._document += ENCODE_AT_ONCE
        if self._document >= len(documents):
            self._group, self._document = self._group + 1, 0
        if self._group == self.source.num_groups():
            self.epoch, self._group = self.epoch + 1, 0
        return len(self._buffer) > before

    def _current_group(self) -> list[str]:
        index = self._group
        if self.seed is not None:
            if self._order is None or self._order[0] != self.epoch:
                self._order = (self.epoch, _order_of(self.source.num_groups(), self.seed, self.epoch))
            index = self._order[1][index]
        if self._loaded is None or self._loaded[0] != index:
            self._loaded = (index, self.source.group(index))
        return self._loaded[1]

    def state_dict(self) -> dict[str, Any]:
        """The position, fit for JSON: the batches after loading it are exactly those that would follow."""
        position = {"epoch": self.epoch, "group": self._group, "document": self._document}
        return {**position, "buffer": list(self._buffer), **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position. Raises DataError if it was saved on other text, or another order."""
        _check_identity(state, self._identity(), self.source.name)
        self.epoch, self._group, self._document = state["epoch"], state["group"], state["document"]
        self._buffer = list(state["buffer"])

    def _identity(self) -> dict[str, Any]:
        return {"source": self.source.fingerprint, "seed": self.seed}


def _order_of(count: int, seed: int, epoch: int) -> Sequence[int]:
    """The numbers below `count` in the order that belongs to this seed and epoch."""
    return shuffled(count, seed * 1_000_003 + epoch)


def _check_identity(state: dict[str, Any], expected: dict[str, Any], name: str) -> None:
    differing = [key for key, value in expected.items() if state.get(key) != value]
    if differing:
        raise DataError(
            f"the saved position does not fit {name}: another {' and '.join(differing)}.\n"
            "Continue with the data the run was started with, or start a new run."
        )


class Rendered(NamedTuple):
    """A conversation as tokens, and its number in the task."""

    number: int
    ids: list[int]
    mask: list[int]


class ConversationBatches:
    """Endless batches `(inputs, targets)`, int64 `(rows, context)`, of whole conversations.

    A row starts with the conversation that waited longest and is filled up with the longest ones that
    still fit, out of a small buffer; the rest is bos, with target -1. `supervise="assistant"` gives a
    target only to what the assistant must write, "all" to every token but the padding. A conversation
    longer than a row is cut; one with nothing left to learn is dropped. Each epoch has its own order.
    Raises DataError when no conversation of the task has anything to learn.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Tokenizer,
        rows: int,
        context: int,
        *,
        supervise: str = "assistant",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if supervise not in ("assistant", "all"):
            raise ConfigError(f"supervise={supervise!r}: choose assistant or all.")
        self.task, self.tokenizer, self.rows, self.context = task, tokenizer, rows, context
        self.supervise, self.seed, self.device = supervise, seed, device
        self.epoch = 0
        self._next = 0  # how many conversations of this epoch were taken
        self._order = _order_of(len(task), seed, 0)
        self._buffer: list[Rendered] = []

    def __iter__(self) -> ConversationBatches:
        return self

    def __next__(self) -> Batch:
        ids, mask = zip(*(self._row() for _ in range(self.rows)), strict=True)
        tokens = torch.tensor(ids, dtype=torch.int64, device=self.device)
        supervised = torch.tensor(mask, dtype=torch.bool, device=self.device)
        return tokens[:, :-1], tokens[:, 1:].masked_fill(~supervised[:, 1:], -1)

    def _row(self) -> tuple[list[int], list[int]]:
        """One row of `context + 1` tokens and its mask."""
        self._fill_buffer()
        first = self._buffer.pop(0)
        ids, mask = list(first.ids), list(first.mask)
        while True:
            self._fill_buffer()
            room = self.context + 1 - len(ids)
            fitting = [conversation for conversation in self._buffer if len(conversation.ids) <= room]
            if not fitting:
                return ids + [self.tokenizer.get_bos_token_id()] * room, mask + [0] * room
            chosen = max(fitting, key=lambda conversation: len(conversation.ids))
            self._buffer.remove(chosen)
            ids += chosen.ids
            mask += chosen.mask

    def _fill_buffer(self) -> None:
        fruitless = 0
        while len(self._buffer) < PACKING_BUFFER:
            if fruitless >= len(self.task):
                raise DataError(
                    f"no conversation of {type(self.task).__name__} leaves anything to learn within "
                    f"{self.context} tokens.\nUse a longer context, or shorter conversations."
                )
            rendered = self._render(self._advance())
            fruitless = 0 if rendered else fruitless + 1
            self._buffer += [rendered] if rendered else []

    def _advance(self) -> int:
        """The number of the next conversation."""
        index = self._order[self._next]
        self._next += 1
        if self._next == len(self._order):
            self.epoch, self._next = self.epoch + 1, 0
            self._order = _order_of(len(self.task), self.seed, self.epoch)
        return index

    def _render(self, index: int) -> Rendered | None:
        """Conversation `index`, cut to a row; None if no target would remain."""
        ids, mask = render_conversation(self.tokenizer, self.task[index], self.context + 1)
        if self.supervise == "all":
            mask = [1] * len(ids)
        return Rendered(index, ids, mask) if any(mask[1:]) else None

    def state_dict(self) -> dict[str, Any]:
        """The position, fit for JSON: the batches after loading it are exactly those that would follow."""
        waiting = [conversation.number for conversation in self._buffer]
        return {"epoch": self.epoch, "next": self._next, "buffer": waiting, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position. Raises DataError when it was saved on another task or order."""
        _check_identity(state, self._identity(), type(self.task).__name__)
        self.epoch, self._next = state["epoch"], state["next"]
        self._order = _order_of(len(self.task), self.seed, self.epoch)
        self._buffer = [rendered for index in state["buffer"] if (rendered := self._render(index))]

    def _identity(self) -> dict[str, Any]:
        return {"conversations": len(self.task), "seed": self.seed}
