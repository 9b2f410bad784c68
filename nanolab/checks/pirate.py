"""Checks of challenge 1, the pirate personality: the learner's examples and their file.

`pirate_measures` and `pirate_results` check what is trained on them and measured; all can be had from here.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from nanolab.chat import validate_conversation
from nanolab.checks.core import NotAttempted, Wrong, attempted, call, check, shown
from nanolab.checks.pirate_measures import batches, mixing, pirate_share, sounds_piratical
from nanolab.checks.pirate_results import findings, forgotten
from nanolab.errors import DataError
from nanolab.lessons import pirates
from nanolab.tasks import CustomJSON

__all__ = [
    "FEWEST", "batches", "conversations", "file", "findings", "forgotten", "mixing", "pirate_share", "ready",
    "sounds_piratical",
]  # fmt: skip

FEWEST = 20
"""different questions, and different answers, that make a voice rather than a few sentences by heart"""

FIRST = 5
"""conversations of task 1"""

FORM = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'


# ---- task 1: conversations


@check
def conversations(examples: object) -> str:
    """The learner's examples, or the function that makes them, are conversations with something to learn."""
    found = _examples(examples)
    different = len({_pair(one) for one in found})
    if different < FIRST:
        raise Wrong(
            f"{FIRST} different conversations or more are asked for.",
            got=f"{len(found)} conversation{'s' * (len(found) != 1)}"
            + (f", {different} of them different" if different < len(found) else ""),
        )
    more = "" if different == len(found) else f", {different} of them different"
    return f"{len(found)} valid conversation{'s' * (len(found) != 1)}{more}."


def _examples(given: object) -> list[dict[str, Any]]:
    """The examples, each as `{"messages": [...]}`. Raises `Wrong` at the first that is none."""
    if inspect.isfunction(given) or inspect.ismethod(given):
        given = call(given)
    if isinstance(given, str):
        raise Wrong(
            "the examples are a text, where a list is expected.", got=shown(given, 80),
            cause="`json.dumps` comes later, when they are written to a file.",
        )  # fmt: skip
    if isinstance(given, Mapping) and "messages" in given:
        raise Wrong(
            "this is a single conversation; a list of them is expected.",
            cause="Put each question with its answer into a dictionary of its own, and all of these in a "
            "list.",
        )
    if not isinstance(given, (list, tuple)):
        raise Wrong(
            "the examples should be a list of conversations.", got=shown(given, 80),
            cause="Round brackets around a `for` make no list: take square ones."
            if inspect.isgenerator(given) else "",
        )  # fmt: skip
    if not given:
        raise Wrong("the list of examples is empty.", cause="Does your function fill the list it returns?")
    found = [_conversation(one, number) for number, one in enumerate(given, 1)]
    _long_talk(found)
    _who_speaks(found)
    return found


def _conversation(one: object, number: int) -> dict[str, Any]:
    """One example as `{"messages": [...]}`, as CustomJSON takes it."""
    what = f"example {number}"
    if isinstance(one, (tuple, list)) and one and all(isinstance(part, str) for part in one):
        raise Wrong(
            f"{what} is a plain pair of texts.", got=shown(one, 80), expected=FORM,
            cause="A chat model learns from messages that say who speaks: wrap each pair.",
        )  # fmt: skip
    if isinstance(one, str):
        raise Wrong(
            f"{what} is a text, where a dictionary is expected.", got=shown(one, 80), expected=FORM,
            cause="`json.dumps` comes later, when they are written to a file.",
        )  # fmt: skip
    if isinstance(one, list) and any(isinstance(part, Mapping) and "messages" in part for part in one):
        raise Wrong(
            f"{what} is a list of conversations itself.",
            cause="Join two lists with `+`: `[a, b]` and `a.append(b)` put a list into a list.",
        )
    messages = one.get("messages") if isinstance(one, Mapping) else one
    if not isinstance(messages, list):
        if isinstance(one, Mapping) and "messages" in one:
            raise Wrong(f'the "messages" of {what} are no list.', got=shown(one, 80), expected=FORM)
        keys = f"The keys here are {', '.join(map(str, one))}." if isinstance(one, Mapping) else ""
        raise Wrong(f'{what} has no list of "messages". {keys}'.strip(), got=shown(one, 80), expected=FORM)
    if not messages:
        raise Wrong(f"{what} has no messages: it is empty.", expected=FORM)
    roles = [message.get("role") if isinstance(message, Mapping) else None for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if strange := [role for role in turns if role not in ("user", "assistant")]:
        raise Wrong(
            f"{what} has a message of the role {strange[0]!r}.",
            cause="The roles are user and assistant. Your pirate *is* the assistant: only its words are "
            "piratical.",
        )
    if "assistant" not in turns:
        raise Wrong(
            f"{what} has no message of the assistant.",
            cause="Without an answer there is nothing to learn: only the assistant's words count in the "
            "loss.",
        )
    if turns[0] == "assistant":
        raise Wrong(
            f"{what} begins with the assistant.", got=" ".join(map(str, turns)), expected="user assistant",
            cause="Are the roles swapped? The user asks first, then the assistant answers.",
        )  # fmt: skip
    if any(a == b for a, b in pairwise(turns)):
        raise Wrong(
            f"{what} has two messages of the same role in a row.", got=" ".join(map(str, turns)),
            cause="User and assistant take turns. Two questions in a row belong into one message.",
        )  # fmt: skip
    for message in messages:
        content = message.get("content")
        if isinstance(content, str) and not content.strip():
            raise Wrong(
                f"{what} has an empty message of the {message['role']}.",
                cause="From an empty answer the model would learn to say nothing at all.",
            )
        if isinstance(content, str) and ("<bound method" in content or "<function" in content):
            raise Wrong(
                f"{what} holds a function in place of its result.", got=shown(content, 80),
                cause="Call it, with its brackets: `fact.canonical()`.",
            )  # fmt: skip
    if turns[-1] == "user":
        raise Wrong(f"{what} ends with the user.", cause="The last question has no answer to learn from.")
    conversation = {"messages": messages}
    try:
        validate_conversation(conversation)
    except DataError as error:
        raise Wrong(f"{what}: {error}") from None
    return conversation


def _long_talk(found: Sequence[dict[str, Any]]) -> None:
    if len(found) == 1 and len(found[0]["messages"]) > 8:
        raise Wrong(
            f"there is one conversation of {len(found[0]['messages'])} messages.",
            cause="Are all your questions in one list of messages? Each pair is a conversation of its own: "
            "in a "
            "long one the model sees all earlier pirates before it answers, and need not learn to begin.",
        )


def _who_speaks(found: Sequence[dict[str, Any]]) -> None:
    """The assistant should be the pirate: more often than the user, and at all."""
    users = sum(pirates.sounds_piratical(_said(one, "user")) for one in found)
    answers = sum(pirates.sounds_piratical(_said(one, "assistant")) for one in found)
    if users > answers and users >= len(found) / 2:
        raise Wrong(
            f"the user talks like a pirate ({users} of {len(found)} times), the assistant hardly does "
            f"({answers}).",
            cause="Are question and answer exchanged? The user's words are read, but not learned.",
        )
    if not answers:
        raise Wrong(
            "no answer sounds like a pirate.",
            cause="The model can learn only the voice that it is shown. `pirates.WORDS` has words to "
            "choose from.",
        )


def _said(conversation: Mapping[str, Any], role: str) -> str:
    """All that one role says, joined."""
    texts = []
    for message in conversation["messages"]:
        if message["role"] == role:
            content = message["content"]
            texts.append(content if isinstance(content, str) else " ".join(part["text"] for part in content))
    return "\n".join(texts)


def _pair(conversation: Mapping[str, Any]) -> tuple[str, str]:
    return pirates.plain(_said(conversation, "user")), pirates.plain(_said(conversation, "assistant"))


# ---- task 2: variety, voice, no leak


@check
def ready(examples: object, words: Iterable[str] = pirates.WORDS) -> str:
    """Enough different examples, one voice, and no test prompt among the questions."""
    found = _examples(examples)
    pairs = [_pair(one) for one in found]
    questions, answers = {question for question, _ in pairs}, {answer for _, answer in pairs}
    _no_leak(found)
    if len(questions) < FEWEST:
        repeated = len(found) - len(set(pairs))
        raise Wrong(
            f"there are {len(found)} examples, but only {len(questions)} different questions."
            if repeated else f"there are only {len(questions)} different questions.",
            got=f"{len(questions)} different questions", expected=f"{FEWEST} at least",
            cause="Repetition adds none: the model learns these sentences by heart, and stays itself on any "
            "other question. (Case and punctuation don't make a question new.)" if repeated else "",
        )  # fmt: skip
    if len(answers) < FEWEST:
        raise Wrong(
            f"{len(questions)} different questions have only {len(answers)} different answers.",
            got=f"{len(answers)} different answers", expected=f"{FEWEST} at least",
            cause="A model that may always say the same need not listen to the question.",
        )  # fmt: skip
    wanted = frozenset(str(word).lower() for word in words)
    distinct = {pair: one for pair, one in zip(pairs, found, strict=True)}
    silent = [
        one for one in distinct.values() if not pirates.sounds_piratical(_said(one, "assistant"), wanted)
    ]
    if len(silent) > len(distinct) // 10:
        raise Wrong(
            f"{len(silent)} of {len(distinct)} answers don't sound like a pirate.",
            got=shown(_said(silent[0], "assistant"), 80),
            cause="The voice is not consistent: a model that sees two voices learns to mix them. If your "
            "pirates "
            "use other words than `pirates.WORDS`, give a set of them as second argument.",
        )  # fmt: skip
    return f"{len(questions)} different questions, one voice, and the test prompts stay unseen."


def _no_leak(found: Sequence[Mapping[str, Any]]) -> None:
    prompts = {pirates.plain(prompt): prompt for prompt in pirates.TEST_PROMPTS}
    for number, one in enumerate(found, 1):
        for message in one["messages"]:
            # As whole words: "size are you" is no part of "prize are you".
            said = f" {pirates.plain(_said({'messages': [message]}, message['role']))} "
            for key, prompt in prompts.items():
                if f" {key} " in said:
                    raise Wrong(
                        f"example {number} holds a test prompt: {prompt!r}.",
                        cause="A test prompt in the training data measures memory, not the voice. Ask "
                        "something "
                        "else there; upper case or a missing question mark does not make it another "
                        "question.",
                    )


# ---- task 3: the file


@check
def file(path: object, examples: object = None) -> str:
    """A file that `CustomJSON` reads, with all the examples in it."""
    if not isinstance(path, (str, Path)):
        raise Wrong("the path of the file is expected.", got=shown(path, 80))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotAttempted(f"there is no file {path} yet. Fill in the TODO above, and run it.") from None
    except UnicodeDecodeError:
        raise Wrong(
            "the file is not UTF-8 text.", cause='Open it with `open(path, "w", encoding="utf-8")`.'
        ) from None
    except OSError as error:
        raise Wrong(f"the file cannot be read: {error}.") from None
    try:
        task = CustomJSON(path)
    except DataError as error:
        raise Wrong("`CustomJSON` cannot read this file.", got=shown(text, 80), expected=FORM,
                    cause=_why_unreadable(text) or str(error)) from None  # fmt: skip
    if attempted(examples):
        made = _examples(examples)
        if len(task) != len(made):
            raise Wrong(
                f"the file holds {len(task)} conversations, where your list has {len(made)}.",
                got=len(task), expected=len(made), difference=abs(len(task) - len(made)),
                cause="Each pass through the loop opens the file anew and overwrites it?" if len(task) == 1
                else "Is it of an earlier list? Or does the loop leave some out?" if len(task) < len(made)
                else 'Was it opened with "a", so that each run appends to the last one? Or is it of an '
                     'earlier list?',
            )  # fmt: skip
        _pairs_agree([_pair(one) for one in task], [_pair(one) for one in made])
    kind = "one JSON array" if text.lstrip().startswith("[") and "\n" in text.strip() else "one a line"
    return f"`CustomJSON` finds {len(task)} conversations in it ({kind})."


def _pairs_agree(found: Sequence[tuple[str, str]], made: Sequence[tuple[str, str]]) -> None:
    missing = Counter(made) - Counter(found)
    if missing:
        raise Wrong(
            "the file holds other conversations than your list.", expected=shown(next(iter(missing)), 120),
            cause="It was written before you changed the list: write it again.",
        )  # fmt: skip


def _why_unreadable(text: str) -> str:
    """The likely way in which a file came to be no JSON."""
    bare = text.strip()
    if not bare:
        return "The file is empty. Was it opened for writing, and never written to, or not closed yet?"
    if bare.startswith(("[{'", "{'", "[['")):
        return "This is how Python shows a list, with single quotes. JSON has double ones: use `json.dumps`."
    if "}{" in bare:
        return 'The conversations stand on one line, end to end: write a "\\n" behind each.'
    try:
        value = json.loads(bare)
    except ValueError:
        first = bare.splitlines()[0].rstrip()
        if first.endswith(","):
            return "In JSONL no comma stands between the lines; in JSON the array needs its brackets [ and ]."
        return ""
    if isinstance(value, str):
        return "It holds one text, which holds JSON: it went through `json.dumps` twice."
    if value in ([], {}):
        return "The file holds an empty list."
    return ""
