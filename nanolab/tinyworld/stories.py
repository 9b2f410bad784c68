"""Short stories, explanations and dialogues: the prose families of TinyWorld.

The text lives in `prose/*.json`; this file only fills it in. A template is a sentence with slots:

    "{hero} got {a_colour} {clothing} from {his} {elder}."  ->  "Mia got an orange scarf from her uncle."

`{NAME}` is a filler drawn once a document, so that a second `{NAME}` says the same word; `{a_NAME}` puts
"a" or "an" before it; `{Name}` begins with a capital. Everything is drawn from the `random.Random` that is
passed in: the same seed gives the same text on every machine.
"""

from __future__ import annotations

import json
import random
import re
from functools import cache
from importlib import resources
from typing import Any

SLOT = re.compile(r"\{(\w+)\}")
PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her"},
    "he": {"he": "he", "him": "him", "his": "his"},
}
# A part of an explanation never begins with one of these: it would point at a sentence that is not there.
POINTING_BACK = frozenset(
    [
        "After",
        "At",
        "Between",
        "But",
        "By",
        "First",
        "He",
        "Here",
        "In",
        "It",
        "Its",
        "Next",
        "Now",
        "On",
        "Other",
        "She",
        "So",
        "Soon",
        "That",
        "Their",
        "Then",
        "There",
        "These",
        "They",
        "This",
        "Those",
        "Together",
    ]
)
SOUNDS_LIKE_A = re.compile(r"(?:uni|use|usu|euro|one\b|once\b)", re.IGNORECASE)
SILENT_H = re.compile(r"(?:hour|honest|honour|heir)", re.IGNORECASE)


@cache
def load_prose(name: str) -> Any:
    """The parsed file `prose/NAME.json`; shared between callers, so nobody may change it."""
    file = resources.files("nanolab.tinyworld").joinpath("prose", f"{name}.json")
    return json.loads(file.read_text(encoding="utf-8"))


def a_an(phrase: str) -> str:
    """The phrase with its article, by sound: "a dog", "an owl", "an hour", "a unicorn"."""
    vowel = phrase[0] in "aeiouAEIOU" and not SOUNDS_LIKE_A.match(phrase)
    return f"{'an' if vowel or SILENT_H.match(phrase) else 'a'} {phrase}"


class Cast:
    """The people and things of one document, each drawn when it is first named."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.fillers: dict[str, list[str]] = {
            **load_prose("stories")["fillers"],
            **load_prose("dialogues")["fillers"],
        }
        self.chosen: dict[str, str] = {}
        self._add_person("hero", "")
        self._add_person("friend", "friend_")
        elder = rng.choice(load_prose("stories")["elders"])
        self.chosen["elder"] = elder["name"]
        self.chosen["elder_he"] = elder["he"]

    def _add_person(self, slot: str, prefix: str) -> None:
        sex = self.rng.choice(["she", "he"])
        taken = self.chosen.get("hero")
        names = [name for name in load_prose("stories")["names"][sex] if name != taken]
        self.chosen[slot] = self.rng.choice(names)
        for slot_pronoun, pronoun in PRONOUNS[sex].items():
            self.chosen[prefix + slot_pronoun] = pronoun

    def word(self, slot: str) -> str:
        """What stands for the slot in this document. Raises KeyError for a slot nobody filled."""
        if slot not in self.chosen:
            self.chosen[slot] = self.rng.choice(self.fillers[slot])
        return self.chosen[slot]

    def fill(self, template: str) -> str:
        """The template with every slot replaced."""

        def replace(match: re.Match[str]) -> str:
            slot = match[1].lower()
            text = a_an(self.word(slot[2:])) if slot.startswith("a_") else self.word(slot)
            return text[0].upper() + text[1:] if match[1][0].isupper() else text

        return SLOT.sub(replace, template)


def story(rng: random.Random) -> str:
    """One story of 60 to 140 words, in plain English; every other one has a title line."""
    cast = Cast(rng)
    plot = rng.choice(load_prose("stories")["plots"])
    text = cast.fill(plot["text"])
    if rng.random() < 0.5:
        return text
    title = cast.fill(plot["title"])
    return f"{title[0].upper()}{title[1:]}\n\n{text}"


def some_sentences(sentences: list[str], rng: random.Random) -> list[str]:
    """The whole explanation, or at least four of its sentences in a row that can stand alone."""
    if rng.random() < 0.4:
        return list(sentences)
    starts = [i for i in range(len(sentences) - 3) if i == 0 or sentences[i].split()[0] not in POINTING_BACK]
    start = rng.choice(starts)
    return sentences[start : rng.randrange(start + 4, len(sentences) + 1)]


def explanation(rng: random.Random) -> str:
    """How an everyday thing works: all or part of one explanation, told by or to a named person."""
    item = rng.choice(load_prose("explanations"))
    frame = rng.choice(load_prose("frames"))
    cast = Cast(rng)
    cast.chosen["topic"] = item["topic"]
    cast.chosen["question"] = item["question"]
    sentences = some_sentences(item["sentences"], rng)
    if frame["asked"]:
        # The answer to a question begins where the explanation begins.
        sentences = item["sentences"][: len(sentences)]
    if frame["numbered"]:
        cast.chosen["body"] = "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, start=1))
    else:
        cast.chosen["body"] = " ".join(sentences)
    opening = rng.choice(frame["openings"])
    closing = rng.choice(frame["closings"])
    return cast.fill(frame["layout"].replace("{opening_line}", opening).replace("{closing_line}", closing))


def dialogue(rng: random.Random) -> str:
    """Two people talk: a greeting, up to two subjects, a goodbye; 4 to 8 lines such as "Mia: Hello!"."""
    prose = load_prose("dialogues")
    exchanges = [
        rng.choice(prose["greetings"]),
        *rng.sample(prose["middles"], rng.choice([0, 1, 1, 2, 2])),
        rng.choice(prose["closings"]),
    ]
    cast = Cast(rng)
    lines = []
    for exchange in exchanges:
        lines.append("{hero}: " + rng.choice(exchange["say"]))
        lines.append("{friend}: " + rng.choice(exchange["reply"]))
    return cast.fill("\n".join(lines))
