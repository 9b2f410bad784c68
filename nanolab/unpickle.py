"""Pickles from strangers, read without running anything.

Python's own unpickler can call any function it is told to, and can be told to reserve any amount of memory.
`read_pickle` is an interpreter of the two dozen instructions that pickling a tiktoken Encoding takes. None of
them calls or repeats anything, so there is nothing to misuse and memory grows with the file only.
"""

from __future__ import annotations

import pickletools
from collections.abc import Set
from typing import Any

LARGEST_PICKLE = 4 * 2**20
"""bytes; d32's tokenizer, of 65,536 tokens, takes less than one million"""
DEEPEST_STACK = 5_000
"""values waiting at once: pickle writes dictionaries in batches of 1,000 keys and 1,000 values"""
LARGEST_MEMO = 200_000
"""values remembered for later use; pickle remembers every token once"""


class Encoding:
    """What `tiktoken.core.Encoding` becomes: a place for its state, with no methods at all."""

    state: Any = None


class Refused(Exception):
    """Why a pickle is not read, as a clause."""


def read_pickle(data: bytes) -> Any:
    """The value of a pickle made of dicts, texts, bytes, whole numbers and `tiktoken.core.Encoding` alone.

    Raises Refused for anything else; ValueError, LookupError or TypeError where it is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any
    for instruction, argument, _ in pickletools.genops(data):
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "SHORT_BINUNICODE" | "BINUNICODE" | "SHORT_BINBYTES" | "BINBYTES":
                stack.append(argument)
            case "BININT" | "BININT1" | "BININT2":
                stack.append(argument)
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marks.append(len(stack))
            case "SETITEM" | "SETITEMS":
                start = marks.pop() if instruction.name == "SETITEMS" else len(stack) - 2
                items = stack[start:]
                del stack[start:]
                _set_items(stack[-1], items)
            case "GLOBAL":
                stack.append(_class_named(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_class_named(f"{module} {name}"))
            case "NEWOBJ":
                if stack.pop() != () or stack.pop() is not Encoding:
                    raise Refused("it makes an object that no tokenizer has")
                stack.append(Encoding())
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], Encoding) or isinstance(state, Encoding):
                    raise Refused("it gives a state to something that is no tokenizer")
                stack[-1].state = state
            case "STOP":
                return stack.pop()
            case name:
                raise Refused(f"it holds the pickle instruction {name}, which no tokenizer needs")
        if len(stack) + len(marks) > DEEPEST_STACK or len(memo) > LARGEST_MEMO:
            raise Refused("it piles up more values than any tokenizer")
    raise Refused("it has no end")


def _class_named(name: str) -> type[Encoding]:
    if name != "tiktoken.core Encoding":
        asked = shown(name.replace(" ", ".", 1))
        raise Refused(f"it asks for {asked}, and only tiktoken's Encoding is let in")
    return Encoding


def _set_items(target: Any, items: list[Any]) -> None:
    keys, values = items[::2], items[1::2]
    if type(target) is not dict or not all(isinstance(key, (str, bytes)) for key in keys):
        raise Refused("it fills something that is no dictionary of texts or bytes")
    target.update(zip(keys, values, strict=True))


def strange_name(data: bytes, allowed: Set[str]) -> str | None:
    """The first thing that a pickle of tensors asks for and that is not in `allowed` ("module name")."""
    argument: Any
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name == "PROTO" and argument != 2:
            return f"pickle protocol {argument}"
        if instruction.name == "GLOBAL" and argument not in allowed:
            return shown(argument.replace(" ", ".", 1))
        if instruction.name in ("STACK_GLOBAL", "INST"):
            return f"a name hidden in the pickle instruction {instruction.name}"
    return None


def shown(text: str) -> str:
    """Some of a stranger's text, on one line, nothing in it that a terminal would obey."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 100 else text[:97] + "..."
