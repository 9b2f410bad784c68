"""A conversation as tokens: what the model reads, and which of it the model must learn to write.

    {"messages": [{"role": "user", "content": "What is 3+4?"},
                  {"role": "assistant", "content": [{"type": "python", "text": "3+4"},
                                                    {"type": "python_output", "text": "7"},
                                                    {"type": "text", "text": "It is 7."}]}]}

becomes, with the tokens that are learned (mask 1) underlined,

    <|bos|> <|user_start|> What is 3+4? <|user_end|> <|assistant_start|>
    <|python_start|> 3+4 <|python_end|> <|output_start|> 7 <|output_end|> It is 7. <|assistant_end|>
    ===================================                                   ==========================

The calculator writes its output, so the model need not; it writes the end, so that it learns to stop. The
structure is made of ids, never of text: no message can forge it (the convention is nanochat's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanolab.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nanolab.tokenizer import Tokenizer

Conversation = dict[str, Any]
Message = dict[str, Any]

PART_TYPES = ("text", "python", "python_output")

_CALL = re.compile(r"<<([^<>\n]+)=([^<>=\n]*)>>")
_ALTERNATES = "A conversation alternates user, assistant, user, ..."
_MESSAGE = 'A message is {"role": "user", "content": "Hello"}.'


def validate_conversation(conversation: Any, where: str = "") -> None:
    """Check the form of a conversation. Raises DataError, which begins with `where`, for the first fault.

    Right is: an optional system message, then user and assistant in turn, user first; each content a text,
    or for the assistant also a list of parts, in which a python_output follows the python it answers.
    """
    prefix = f"{where}: " if where else ""
    messages = conversation.get("messages") if isinstance(conversation, Mapping) else None
    if not isinstance(messages, list) or not messages:
        raise DataError(f'{prefix}a conversation needs a list of "messages".\n{_MESSAGE}')
    for number, message in enumerate(messages, 1):
        fault = _fault_of(message, number, led=messages[0])
        if fault:
            raise DataError(f"{prefix}message {number} {fault}")
    if len(messages) == 1 and messages[0]["role"] == "system":
        raise DataError(f"{prefix}a system message alone is no conversation.\nAdd a message from the user.")


def _fault_of(message: Any, number: int, led: Any) -> str | None:
    """What is wrong with message `number` of a conversation that `led` opens, and what to do."""
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        return f'has no "role" and "content".\n{_MESSAGE}'
    role, content = message["role"], message["content"]
    if number == 1 and role == "system":
        return _fault_of_text(content)
    turn = number - (led["role"] == "system")
    expected = "user" if turn % 2 else "assistant"
    if role != expected:
        return f'is from {_quoted(role)}, expected "{expected}".\n{_ALTERNATES}'
    if role == "assistant" and isinstance(content, list):
        return _fault_of_parts(content)
    return _fault_of_text(content)


def _fault_of_parts(parts: list[Any]) -> str | None:
    before = None
    for number, part in enumerate(parts, 1):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in PART_TYPES:
            return f"has a part {number} of type {_quoted(kind)}.\nUse one of {', '.join(PART_TYPES)}."
        fault = _fault_of_text(part.get("text"))
        if fault:
            return f"has a part {number} whose text {fault}"
        if kind == "python_output" and before != "python":
            return f"has a python_output, part {number}, without a python before it.\nAdd the expression."
        before = kind
    return None


def _fault_of_text(text: Any) -> str | None:
    if not isinstance(text, str):
        return f"is {type(text).__name__}, expected a text.\nPut it in quotation marks."
    if re.search("[\ud800-\udfff]", text):
        return "holds half a character (a lone surrogate).\nWrite the character out, or remove it."
    return None


def _quoted(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def render_conversation(
    tokenizer: Tokenizer, conversation: Conversation, max_tokens: int | None = None
) -> tuple[list[int], list[int]]:
    """`(ids, mask)` of equal length; mask 1 marks what the assistant must write. See the top of this file.

    Both are cut after `max_tokens`. Raises DataError for a conversation that is not well formed.
    """
    validate_conversation(conversation)
    ids: list[int] = []
    mask: list[int] = []
    special = tokenizer.encode_special

    def add(tokens: list[int], learned: int) -> None:
        ids.extend(tokens)
        mask.extend([learned] * len(tokens))

    add([special("<|bos|>")], 0)
    for message in _with_system_merged(conversation["messages"]):
        if message["role"] == "user":
            words = tokenizer.encode(message["content"])
            add([special("<|user_start|>"), *words, special("<|user_end|>")], 0)
            continue
        add([special("<|assistant_start|>")], 0)
        for kind, text in _parts(message["content"]):
            words = tokenizer.encode(text)
            if kind == "text":
                add(words, 1)
            elif kind == "python":
                add([special("<|python_start|>"), *words, special("<|python_end|>")], 1)
            else:
                add([special("<|output_start|>"), *words, special("<|output_end|>")], 0)
        add([special("<|assistant_end|>")], 1)
    return ids[:max_tokens], mask[:max_tokens]


def _with_system_merged(messages: list[Message]) -> list[Message]:
    """The small model knows two roles: what the system says goes before the first words of the user."""
    if messages[0]["role"] != "system":
        return messages
    merged = {"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [merged, *messages[2:]]


def _parts(content: str | list[dict[str, str]]) -> list[tuple[str, str]]:
    """`(type, text)` of each part of what an assistant said."""
    if isinstance(content, str):
        return [("text", content)]
    return [(part["type"], part["text"]) for part in content]


def render_for_completion(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """The prompt for the assistant's next message: ends with `<|assistant_start|>`.

    A last message from the assistant is left out: it is the one to be written again.
    """
    validate_conversation(conversation)
    messages = conversation["messages"]
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    ids, _ = render_conversation(tokenizer, {"messages": messages})
    return [*ids, tokenizer.encode_special("<|assistant_start|>")]


def truncate_history(tokenizer: Tokenizer, conversation: Conversation, max_tokens: int) -> Conversation:
    """The conversation without its oldest turns, so that its prompt has at most `max_tokens` tokens.

    A turn is a user's message and the reply. A system message stays and goes before the oldest turn kept.
    Where the last turn alone is too long, the end of its question stays. The argument is not changed.
    Raises ConfigError where `max_tokens` has no room for a single token of the user's.
    """
    validate_conversation(conversation)
    messages = conversation["messages"]
    lead = messages[:1] if messages[0]["role"] == "system" else []
    turns = messages[len(lead) :]
    start = (len(turns) - 1) // 2 * 2
    kept = {**conversation, "messages": lead + turns[start:]}
    if len(render_for_completion(tokenizer, kept)) > max_tokens:
        return {**kept, "messages": _with_end_of_question(tokenizer, kept["messages"], max_tokens)}
    while start > 0:
        start -= 2
        longer = {**conversation, "messages": lead + turns[start:]}
        if len(render_for_completion(tokenizer, longer)) > max_tokens:
            break
        kept = longer
    return kept


def _with_end_of_question(tokenizer: Tokenizer, messages: list[Message], max_tokens: int) -> list[Message]:
    """One turn whose question is cut from the left."""
    question, *reply = _with_system_merged(messages)
    frame = len(render_for_completion(tokenizer, {"messages": [{"role": "user", "content": ""}]}))
    ids = tokenizer.encode(question["content"])
    for room in range(max_tokens - frame, 0, -1):
        # A cut in mid-character leaves continuation bytes, 10xxxxxx; and the rest may encode longer.
        end = tokenizer.decode_bytes(ids[-room:]).lstrip(bytes(range(0x80, 0xC0))).decode()
        if len(tokenizer.encode(end)) <= max_tokens - frame:
            return [{**question, "content": end}, *reply]
    raise ConfigError(
        f"max_tokens={max_tokens} leaves no room for the user's words.\nUse at least {frame + 1}, better 100."
    )


def calls_to_parts(text: str) -> list[dict[str, str]]:
    """GSM8K's notation for the calculator as parts of a message.

    "has 3+4=<<3+4=7>>7 apples" -> text "has 3+4=", python "3+4", python_output "7", text "7 apples".
    What has not the form `<<expression=result>>` stays text.
    """
    parts: list[dict[str, str]] = []
    position = 0
    for call in _CALL.finditer(text):
        parts.append({"type": "text", "text": text[position : call.start()]})
        parts.append({"type": "python", "text": call[1]})
        parts.append({"type": "python_output", "text": call[2]})
        position = call.end()
    parts.append({"type": "text", "text": text[position:]})
    return [part for part in parts if part["text"] or part["type"] != "text"]
