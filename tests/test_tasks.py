"""Tasks: slicing, mixing, and scoring of answers; and every way a learner's own file can be wrong."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanolab.calculator import calculate
from nanolab.errors import ConfigError, DataError
from nanolab.tasks import (
    ARC,
    GSM8K,
    MMLU,
    CustomJSON,
    SimpleSpelling,
    SmolTalk,
    SpellingBee,
    Task,
    TaskMixture,
    extract_answer,
    load_rows,
    multiple_choice,
)
from nanolab.tasks.spelling import COUNT, LENGTH, SPELL, TYPED_SHARE
from nanolab.tinyworld.words import held_out, known_words, spelling_words

WORDS = [
    "apple",
    "strawberry",
    "banana",
    "cherry",
    "lemon",
    "mango",
    "olive",
    "papaya",
    "peach",
    "quince",
] + [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "klmnt"]
JUNK = [
    "",
    " ",
    "\ufffd\ufffd",
    "#### ",
    "####",
    "#### .",
    "#### -",
    "\x00",
    "A" * 100_000,
    "####\n7",
    "<|bos|>",
    "[",
]


class Letters(Task):
    """`size` conversations, each naming its own index."""

    def __init__(self, size: int, name: str = "", **view: int | None) -> None:
        super().__init__(**view)
        self.size, self.name = size, name

    def num_examples(self) -> int:
        return self.size

    def get_example(self, index: int) -> dict:
        return {"id": f"{self.name}{index}"}


def ids(task: Task) -> list[str]:
    return [conversation["id"] for conversation in task]


def question(conversation: dict) -> str:
    return conversation["messages"][0]["content"]


def reply(conversation: dict) -> str:
    content = conversation["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


# Slicing

bounds = st.none() | st.integers(-12, 12)
steps = st.integers(-4, 4).filter(bool)


@given(
    size=st.integers(0, 10),
    start=st.integers(-12, 12),
    stop=bounds,
    step=steps,
    again=st.tuples(bounds, bounds, steps),
)
def test_a_task_is_sliced_as_a_list_is(size, start, stop, step, again):
    whole = [str(index) for index in range(size)]
    expected = whole[start:stop:step]
    task = Letters(size, start=start, stop=stop, step=step)
    assert (len(task), ids(task)) == (len(expected), expected)
    assert [task[index]["id"] for index in range(-len(task), len(task))] == expected * 2
    assert ids(task[slice(*again)]) == expected[slice(*again)]
    assert ids(task) == expected, "slicing must not change the task"


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_past_the_end_of_the_view_is_refused(index):
    with pytest.raises(IndexError):
        Letters(10, stop=3)[index]


def test_step_zero_is_refused_at_once():
    with pytest.raises(ConfigError, match="step=0"):
        Letters(10, step=0)


# Mixing


@given(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 3))
def test_a_mixture_holds_every_example_exactly_once(sizes, seed):
    tasks = [Letters(size, name=f"{number}:") for number, size in enumerate(sizes)]
    mixture = TaskMixture(tasks, seed=seed)
    assert len(mixture) == sum(sizes)
    assert sorted(ids(mixture)) == sorted(name for task in tasks for name in ids(task))


def test_a_task_listed_twice_counts_twice():
    once, twice = Letters(5, "a"), Letters(7, "b")
    counts = Counter(ids(TaskMixture([twice, once, twice])))
    assert counts == Counter(ids(once)) + Counter(ids(twice)) + Counter(ids(twice))


def test_a_mixture_of_views_uses_only_the_views():
    mixture = TaskMixture([Letters(10, "a", start=7), Letters(10, "b")[:2]])
    assert sorted(ids(mixture)) == ["a7", "a8", "a9", "b0", "b1"]


def test_the_order_is_written_down_so_that_no_python_version_can_change_it():
    assert ids(TaskMixture([Letters(5, "a"), Letters(4, "b")])) == ORDER_42
    assert ids(TaskMixture([Letters(5, "a"), Letters(4, "b")], seed=1)) != ORDER_42


ORDER_42 = ["b3", "b2", "a4", "a2", "a3", "b1", "a1", "a0", "b0"]


def test_a_shuffle_leaves_no_place_for_the_order_of_the_tasks():
    """Each place must hold task a with its share, 1 in 2, over many seeds: 5 sigma of a fair coin."""
    tasks, seeds = [Letters(4, "a"), Letters(4, "b")], 2000
    firsts = Counter(
        place
        for seed in range(seeds)
        for place, name in enumerate(ids(TaskMixture(tasks, seed)))
        if name[0] == "a"
    )
    assert all(abs(firsts[place] - seeds / 2) < 5 * math.sqrt(seeds / 4) for place in range(8))


def test_a_mixture_of_a_million_is_quick():
    began = time.process_time()
    mixture = TaskMixture([Letters(600_000), Letters(400_000)])
    mixture[999_999]
    assert time.process_time() - began < 5, "seconds of computing; a quadratic shuffle takes hours"


# Multiple choice

MMLU_ROW = {"question": "2 + 2?", "subject": "arithmetic", "choices": ["3", "4", "5", "22"], "answer": 1}
ARC_ROW = {
    "id": "x",
    "question": "Which is hot?",
    "choices": {"text": ["sun", "ice", "snow"], "label": ["1", "2", "3"]},
    "answerKey": "1",
}


def test_multiple_choice_is_laid_out_as_nanochat_does():
    expected = (
        "Multiple Choice question: 2 + 2?\n- 3=A\n- 4=B\n- 5=C\n- 22=D\n\n"
        "Respond only with the letter of the correct answer."
    )
    conversation = MMLU([MMLU_ROW])[0]
    assert question(conversation) == expected
    assert conversation["letters"] == ["A", "B", "C", "D"]
    assert reply(conversation) == "B"


def test_mmlu_rows_nested_in_train_are_unwrapped():
    assert MMLU([{"train": MMLU_ROW}])[0] == MMLU([MMLU_ROW])[0]


def test_arc_keeps_the_labels_of_each_row():
    conversation = ARC([ARC_ROW])[0]
    assert conversation["letters"] == ["1", "2", "3"]
    assert "- sun=1\n- ice=2\n- snow=3\n" in question(conversation)


def test_only_the_right_letter_alone_scores():
    task = MMLU([MMLU_ROW])
    conversation = task[0]
    assert task.evaluate(conversation, "B") is True and task.reward(conversation, " B\n") == 1.0
    for wrong in ["A", "b", "E", "B.", "The answer is B", "AB", "1", *JUNK]:
        assert task.evaluate(conversation, wrong) is False and task.reward(conversation, wrong) == 0.0


def test_a_reply_outside_the_letters_is_wrong_even_where_the_reference_says_the_same():
    conversation = {**MMLU([MMLU_ROW])[0], "letters": ["A", "C"]}
    assert not MMLU([]).evaluate(conversation, "B")


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (MMLU, {**MMLU_ROW, "answer": 4}, "answer 4"),
        (MMLU, {**MMLU_ROW, "answer": -1}, "answer -1"),
        (MMLU, {**MMLU_ROW, "answer": True}, "'answer' is bool"),
        (MMLU, {**MMLU_ROW, "choices": ["3"]}, "of 1 choices"),
        (MMLU, {**MMLU_ROW, "question": None}, "'question' is NoneType"),
        (MMLU, {"prompt": "2 + 2?"}, "no column 'question'"),
        (MMLU, "not a row", "is str, expected a row"),
        (ARC, {**ARC_ROW, "answerKey": "4"}, "'4' is not one of"),
        (ARC, {**ARC_ROW, "choices": {"text": ["sun"], "label": ["1", "2"]}}, "1 choices with 2 letters"),
        (ARC, {**ARC_ROW, "choices": {"text": ["sun", "ice"], "label": ["1", "1"]}}, "once each"),
        (ARC, {**ARC_ROW, "choices": {"text": [], "label": []}}, "0 choices"),
        (ARC, {**ARC_ROW, "choices": ["sun"]}, "'choices' is list"),
        (GSM8K, {"question": "How many?", "answer": "Seven."}, "#### 72"),
        (GSM8K, {"question": "How many?"}, "no column 'answer'"),
        (SmolTalk, {"messages": [{"role": "user", "content": "Hello"}]}, "row 1"),
        (SmolTalk, {"messages": []}, "row 1"),
        (SmolTalk, {"messages": [{"role": "assistant", "content": "Hello"}]}, "row 1"),
        (SmolTalk, {"messages": "Hello"}, "'messages' is str"),
    ],
)
def test_a_bad_row_is_named_in_the_error(task, row, message):
    with pytest.raises(DataError, match="row 1") as caught:
        task([None, row])[1]
    assert message in str(caught.value)


def test_multiple_choice_needs_the_answer_among_the_letters():
    with pytest.raises(DataError, match="not one of"):
        multiple_choice("Which?", ["a", "b"], "C", ["A", "B"])


# GSM8K

CLIPS = {
    "question": "Natalia sold clips to 48 friends in April, half as many in May. How many?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72 clips.\n#### 72",
}


def test_calculator_calls_become_parts():
    assert GSM8K([CLIPS])[0]["messages"][1]["content"] == [
        {"type": "text", "text": "She sold 48/2 = "},
        {"type": "python", "text": "48/2"},
        {"type": "python_output", "text": "24"},
        {"type": "text", "text": "24 clips in May.\nIn all 48+24 = "},
        {"type": "python", "text": "48+24"},
        {"type": "python_output", "text": "72"},
        {"type": "text", "text": "72 clips.\n#### 72"},
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 72", "72"),
        ("#### 1,234", "1234"),
        ("#### 1,234,567.50", "1234567.5"),
        ("#### -5", "-5"),
        ("#### +5", "5"),
        ("#### 3.00", "3"),
        ("#### 7.", "7"),
        ("#### .5", "0.5"),
        ("#### 007", "7"),
        ("#### -0", "0"),
        ("#### 0.0", "0"),
        ("#### $18", "18"),
        ("#### -$18", "-18"),
        ("####72", "72"),
        ("#### 72 clips", "72"),
        ("#### 100000000000000000000000000000000001", "100000000000000000000000000000000001"),
        ("so 3.\n#### 4\n#### 5", "4"),
        ("72", None),
        ("### 72", None),
        ("#### seventy", None),
        ("#### ,", None),
        ("#### ٧", None),
    ],
)
def test_the_final_number_is_read_in_one_form(text, number):
    assert extract_answer(text) == number


@given(st.integers(-(10**12), 10**12), st.integers(0, 999))
def test_however_a_number_is_written_it_is_the_same_answer(whole, thousandths):
    plain = f"{whole}.{thousandths:03d}"
    assert float(extract_answer(f"#### {plain}")) == float(plain)
    assert extract_answer(f"#### {plain}") == extract_answer(f"#### {whole:,}.{thousandths:03d}00")


SCORING = [GSM8K([CLIPS]), MMLU([MMLU_ROW]), SimpleSpelling(words=WORDS), SpellingBee(words=WORDS)]


@given(st.text() | st.text("#0123456789,.-+$ \n"))
def test_no_reply_can_raise(text):
    for task in SCORING:
        assert task.evaluate(task[0], "####" + text) in (True, False)
        assert task.evaluate(task[0], text) in (True, False)


def test_gsm8k_scores_the_number_and_not_the_working():
    task = GSM8K([CLIPS])
    conversation = task[0]
    assert task.evaluate(conversation, "Because I say so.\n#### 72.0")
    assert task.reward(conversation, "#### 72") == 1.0
    for wrong in ["72", "#### 73", "#### -72", "#### 7 2", "#### 48\n#### 72", *JUNK]:
        assert not task.evaluate(conversation, wrong)


def test_a_reply_without_a_number_never_equals_a_reference_without_one():
    """None == None once made every unfinished reply right."""
    broken = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "no number"}]}
    assert not GSM8K([]).evaluate(broken, "no number either")
    assert not SpellingBee(words=WORDS).evaluate(broken, "no number either")


# SmolTalk


def test_smoltalk_keeps_a_system_turn_and_drops_other_columns():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
    ]
    assert SmolTalk([{"messages": messages, "source": "somewhere"}])[0] == {"messages": messages}


def test_smoltalk_has_no_right_answer():
    with pytest.raises(NotImplementedError, match="SmolTalk"):
        SmolTalk([]).evaluate({}, "Hi.")


# Spelling


def spelled_word(conversation: dict) -> str:
    """The word that the reply spells."""
    return re.match(r"[a-z](-[a-z])+", reply(conversation))[0].replace("-", "")


def blanked(conversation: dict) -> str:
    """The question without its word, its one-letter words and its quotes, in lower case."""
    asked = re.sub(rf"\b{spelled_word(conversation)}\b", "_", question(conversation)).replace('"', "")
    return re.sub(r"\b[a-z]\b", "_", asked.lower().rstrip("?."))


@pytest.mark.parametrize("task", [SimpleSpelling, SpellingBee])
def test_words_and_phrasings_of_validation_are_never_in_training(task):
    training, validation, test = (list(task(split, size=2_000)) for split in ("train", "val", "test"))
    words, held_out_words = ({*map(spelled_word, one)} for one in (training, validation + test))
    assert words and not any(map(held_out, words))
    assert held_out_words and all(map(held_out, held_out_words))
    phrasings, held_out_phrasings = ({*map(blanked, one)} for one in (training, validation + test))
    assert len(phrasings) >= 20 and len(held_out_phrasings) >= 8
    assert not phrasings & held_out_phrasings


@pytest.mark.parametrize("task", [SimpleSpelling, SpellingBee])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_word_stands_in_the_question_with_quotes_or_as_people_type_it(task, split):
    examples = list(task(split, WORDS, size=1_000))
    typed = [example for example in examples if '"' not in question(example)]
    for example in examples:
        word = re.escape(spelled_word(example))
        assert re.search(rf"(^| ){word}\b" if example in typed else rf' "{word}"', question(example))
    assert len(typed) / len(examples) == pytest.approx(TYPED_SHARE[split], rel=0.15)
    if split == "train":
        assert sum(question(one) == question(one).lower() for one in typed) / len(typed) > 0.8


@pytest.mark.parametrize("phrasings", [SPELL, COUNT, LENGTH])
def test_there_are_enough_phrasings_and_each_names_the_word(phrasings):
    for training, evaluation in (
        (phrasings.quoted, phrasings.quoted_held_out),
        (phrasings.typed, phrasings.typed_held_out),
    ):
        assert len(set(training)) == len(training) >= 8 and len(set(evaluation)) >= 3
    for phrasing in phrasings.quoted + phrasings.quoted_held_out:
        assert ' "{word}"' in phrasing, (
            "quoted, and a blank before, else the quote joins the word in one token"
        )
    for phrasing in phrasings.typed + phrasings.typed_held_out:
        assert re.search(r"(^| )\{word\}($|[ ?.])", phrasing) and '"' not in phrasing


@pytest.mark.parametrize("task", [SimpleSpelling, SpellingBee])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_reference_reply_scores_right_and_the_next_one_wrong(task, split):
    examples = task(split, WORDS, size=100)
    for conversation in examples:
        right = reply(conversation)
        assert examples.reward(conversation, right) == 1.0
        assert examples.reward(conversation, right + "1") == 0.0
        assert examples.reward(conversation, right[:-1]) == 0.0


def test_words_that_the_world_knows_are_spelled_more_often_in_training_only():
    train, val = ({split: SimpleSpelling(split=split, size=2_000)}[split] for split in ("train", "val"))

    def known(task):
        return sum(spelled_word(task[i]) in known_words() for i in range(2_000)) / 2_000

    listed = sum(word in known_words() for word in spelling_words()) / len(spelling_words())
    assert known(train) == pytest.approx(0.3 + 0.7 * listed, abs=0.04)
    assert known(val) == pytest.approx(listed, abs=0.04)
    alone = SimpleSpelling(words=["abiotic", "zoned", "gizmo"], size=50)  # TinyWorld knows none of these
    assert {spelled_word(alone[i]) for i in range(50)} <= {"abiotic", "zoned", "gizmo"}


def test_a_spelling_must_be_whole_and_may_stand_in_a_sentence():
    task = SimpleSpelling(words=["apple"], size=1)
    conversation = task[0]
    assert reply(conversation) == "a-p-p-l-e"
    for right in ["a-p-p-l-e", "It is a-p-p-l-e.", '"a-p-p-l-e"!', "a-p-p-l-e\n"]:
        assert task.evaluate(conversation, right)
    for wrong in [
        "a-p-l-e",
        "a-p-p-l-e-s",
        "x-a-p-p-l-e",
        "a-p-p-l-e-",
        "apple",
        "A-P-P-L-E",
        "a, p, p, l, e",
        *JUNK,
    ]:
        assert not task.evaluate(conversation, wrong)


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_count_is_right_and_one_in_five_is_of_all_letters(split):
    examples = list(SpellingBee(split, WORDS, size=500))
    lengths = 0
    for conversation in examples:
        word, content = spelled_word(conversation), conversation["messages"][1]["content"]
        if isinstance(content, str):
            lengths += 1
            letters = sum(1 for _ in word)
            assert content == f"{'-'.join(word)} has {letters} letters.\n#### {letters}"
            assert "letters" in question(conversation)
            continue
        text, call, output, end = content
        called, letter = call["text"].split('"')[1::2]
        assert called == word and (call["type"], output["type"]) == ("python", "python_output")
        assert calculate(call["text"]) == output["text"] == str(sum(1 for other in word if other == letter))
        assert text["text"].startswith("-".join(word)) and end["text"].endswith(f"\n#### {output['text']}")
        assert re.search(rf'(\b|"){letter}(\b|")', question(conversation).replace(word, ""))
    assert 0.15 < lengths / len(examples) < 0.25


def test_letters_that_are_not_in_the_word_are_asked_for_too():
    answers = Counter(
        extract_answer(reply(conversation)) for conversation in SpellingBee(words=WORDS, size=500)
    )
    assert 0.02 < answers["0"] / 500 < 0.15


@pytest.mark.parametrize("task", [SimpleSpelling, SpellingBee])
def test_spelling_depends_on_split_seed_and_index_alone(task):
    random.seed(1)
    first = list(task("train", WORDS, size=20))
    random.seed(2)
    assert (
        list(task("train", WORDS, size=20))
        == first
        == [task("train", WORDS, size=99)[index] for index in range(20)]
    )
    assert list(task("train", WORDS, size=20, seed=1)) != first
    assert list(task("val", WORDS, size=20)) != list(task("test", WORDS, size=20))


def test_tinyworld_has_words_enough_for_both_splits():
    assert len(SimpleSpelling("train").words) >= 4000
    assert len(SimpleSpelling("val").words) >= 300


def test_a_word_that_could_break_the_calculator_call_is_left_out():
    task = SpellingBee(words=["don't", 'a"b', "naïve", "ox", "Apple", "", "apple"], size=5)
    assert task.words == ["apple"]


def test_no_words_and_unknown_splits_are_refused_in_plain_words():
    with pytest.raises(DataError, match="no word is left for split 'val'"):
        SimpleSpelling("val", words=["apple"])
    with pytest.raises(ConfigError, match="'train', 'val' or 'test'"):
        SpellingBee("valid", words=WORDS)


# CustomJSON


def talk(text: str = "Hello") -> list[dict]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "Ahoy!"}]


GOOD = json.dumps(talk())


def load(tmp_path: Path, content: str | bytes, **settings) -> CustomJSON:
    path = tmp_path / "pirate.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return CustomJSON(path, **settings)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(talk("a")) + "\n" + json.dumps(talk("b")) + "\n",
        json.dumps(talk("a")) + "\n" + json.dumps(talk("b")),
        json.dumps({"messages": talk("a")}) + "\n" + json.dumps({"messages": talk("b"), "source": "me"}),
        json.dumps(talk("a")) + "\r\n\r\n  \r\n" + json.dumps(talk("b")) + "\r\n",
        "\n\n" + json.dumps(talk("a")) + "\n\n\n" + json.dumps(talk("b")) + "\n\n",
        "\ufeff" + json.dumps(talk("a")) + "\n" + json.dumps(talk("b")),
        "\ufeff" + json.dumps([talk("a"), talk("b")], indent=2),
        json.dumps([talk("a"), talk("b")]),
        json.dumps([{"messages": talk("a")}, {"messages": talk("b")}], indent=4),
        "[\n" + json.dumps(talk("a")) + ",\n" + json.dumps(talk("b")) + "\n]\n",
    ],
    ids=[
        "lists",
        "no last newline",
        "objects",
        "CRLF",
        "blank lines",
        "BOM",
        "BOM array",
        "array",
        "indented",
        "one a line",
    ],
)
def test_every_layout_gives_the_same_conversations(tmp_path, content):
    task = load(tmp_path, content)
    assert list(task) == [{"messages": talk("a")}, {"messages": talk("b")}]
    assert task.skipped == []


@pytest.mark.parametrize(
    "content", [GOOD, json.dumps(talk(), indent=1), json.dumps({"messages": talk()}, indent=1)]
)
def test_a_single_conversation_may_span_lines(tmp_path, content):
    assert list(load(tmp_path, content)) == [{"messages": talk()}]


def test_separators_that_are_newlines_only_to_python_stay_in_the_text(tmp_path):
    odd = "a\u2028b\u0085c\x0bd\x1ce"
    content = json.dumps(talk(odd), ensure_ascii=False).replace("\x0b", "\\u000b").replace("\x1c", "\\u001c")
    assert question(load(tmp_path, content + "\n" + GOOD)[0]) == odd


def test_a_huge_line_loads_and_a_bad_one_is_not_printed_whole(tmp_path):
    assert len(question(load(tmp_path, json.dumps(talk("ab " * 2_000_000)))[0])) == 6_000_000
    with pytest.raises(DataError) as caught:
        load(tmp_path, GOOD + "\n" + json.dumps(talk("ab " * 2_000_000))[:-1])
    assert "line 2" in str(caught.value) and len(str(caught.value)) < 1000


def line_3(bad: object) -> str:
    return "\n".join([GOOD, "", bad if isinstance(bad, str) else json.dumps(bad), GOOD])


BAD_LINES = {
    "truncated": GOOD[:-20],
    "not JSON": "Hello, world",
    "two values": GOOD + GOOD,
    "empty list": [],
    "a number": 7,
    "a text": '"hello"',
    "null": None,
    "other columns": {"conversations": talk()},
    "messages is text": {"messages": "hello"},
    "messages is null": {"messages": None},
    "no messages": {"messages": []},
    "wrong order": list(reversed(talk())),
    "user twice": [talk()[0], talk()[0], talk()[1]],
    "only a user": talk()[:1],
    "unknown role": [{"role": "human", "content": "Hello"}, talk()[1]],
    "role is a number": [{"role": 1, "content": "Hello"}, talk()[1]],
    "role is a list": [{"role": ["user"], "content": "Hello"}, talk()[1]],
    "missing content": [{"role": "user"}, talk()[1]],
    "missing role": [{"content": "Hello"}, talk()[1]],
    "content is a number": [{"role": "user", "content": 7}, talk()[1]],
    "content is null": [{"role": "user", "content": None}, talk()[1]],
    "message is text": ["Hello", "Ahoy!"],
    "parts without type": [talk()[0], {"role": "assistant", "content": [{"text": "Ahoy!"}]}],
    "parts from a user": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}, talk()[1]],
    "system in the middle": [*talk(), {"role": "system", "content": "x"}, talk()[1]],
    "half a character": '[{"role": "user", "content": "\\ud83d"}, {"role": "assistant", "content": "Ahoy!"}]',
    "too deep": "[" * 100_000,
    "number too long": '{"messages": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named_and_skip_bad_leaves_out_only_that(tmp_path, bad):
    with pytest.raises(DataError) as caught:
        load(tmp_path, line_3(bad))
    first, *advice = str(caught.value).split("\n")
    assert "pirate.jsonl, line 3" in first
    assert len(advice) >= 1, f"says what to do: {caught.value}"
    task = load(tmp_path, line_3(bad), skip_bad=True)
    assert list(task) == [{"messages": talk()}] * 2
    assert len(task.skipped) == 1 and "line 3" in task.skipped[0]


def test_a_bad_conversation_in_an_array_is_named_by_the_line_it_begins_on(tmp_path):
    lines = ["", "[", GOOD + ",", GOOD + ", " + GOOD + ",", "", json.dumps(talk()[:1]) + ",", GOOD, "]"]
    with pytest.raises(DataError, match=r"pirate\.jsonl, line 6"):
        load(tmp_path, "\n".join(lines))
    assert len(load(tmp_path, "\n".join(lines), skip_bad=True)) == 4


def test_conversations_over_many_lines_are_counted_right(tmp_path):
    content = json.dumps([talk(), talk(), talk()[:1]], indent=1)
    line = content[: content.rindex("[")].count("\n") + 1
    with pytest.raises(DataError, match=rf"pirate\.jsonl, line {line}\b"):
        load(tmp_path, content)


def test_a_bad_first_line_of_several_is_named_as_the_first(tmp_path):
    content = "\n".join([GOOD[:40], GOOD, GOOD])
    with pytest.raises(DataError, match=r"pirate\.jsonl, line 1: not valid JSON"):
        load(tmp_path, content)
    assert len(load(tmp_path, content, skip_bad=True)) == 2


def test_an_array_cut_off_is_named_at_its_last_line(tmp_path):
    whole = json.dumps([talk(), talk(), talk()], indent=2)
    cut = "\n".join(whole.split("\n")[:17])
    for settings in ({}, {"skip_bad": True}):
        with pytest.raises(DataError, match=r"line 17: not valid JSON(.|\n)*ends too early"):
            load(tmp_path, cut, **settings)


@given(st.integers(0, len(GOOD) * 3 + 2))
def test_wherever_a_file_is_cut_the_error_is_ours(tmp_path_factory, length):
    content = "\n".join([GOOD, GOOD, GOOD])[:length]
    folder = tmp_path_factory.mktemp("cut")
    if length in (len(GOOD), len(GOOD) + 1, 2 * len(GOOD) + 1, 2 * len(GOOD) + 2, 3 * len(GOOD) + 2):
        assert len(load(folder, content)) == content.count("Ahoy!")
    else:
        with pytest.raises(DataError, match=f"line {content.count(chr(10)) + 1}|no conversation"):
            load(folder, content)


@pytest.mark.parametrize(
    "content", [b"", b"\n\n  \n", b"[]", b"\xef\xbb\xbf"], ids=["empty", "blank", "array", "BOM"]
)
def test_a_file_with_nothing_in_it_says_so(tmp_path, content):
    with pytest.raises(DataError, match="pirate.jsonl: there is no conversation in it"):
        load(tmp_path, content)


def test_a_file_of_bad_lines_only_shows_the_first(tmp_path):
    with pytest.raises(DataError, match=r"no conversation in it. The first of 2 bad ones:\n.*line 1"):
        load(tmp_path, "[]\n7\n", skip_bad=True)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (GOOD.encode() + b"\n" + GOOD.replace("Hello", "caf\u00e9").encode("latin-1"), 2),
        (GOOD.encode() + b"\n" + GOOD.encode()[:-30] + b"caf\xe9" + b"\n", 2),
        (GOOD.encode("utf-16"), 1),
        (b"\x80\x04\x95", 1),
    ],
)
def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path, content, line):
    with pytest.raises(DataError, match=f"pirate.jsonl, line {line}: not UTF-8(.|\n)*Save the file again"):
        load(tmp_path, content)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        CustomJSON(tmp_path)
    with pytest.raises(DataError, match="there is no such file"):
        CustomJSON(tmp_path / "pirat.jsonl")


def test_a_name_given_as_text_works(tmp_path):
    load(tmp_path, GOOD)
    assert len(CustomJSON(os.fspath(tmp_path / "pirate.jsonl"), start=0, stop=5)) == 1


# load_rows


def test_rows_come_back_from_parquet_and_jsonl(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(
        pyarrow.Table.from_pylist([ARC_ROW]), tmp_path / "rows.parquet", write_page_checksum=True
    )
    (tmp_path / "rows.jsonl").write_text(json.dumps(ARC_ROW) + "\n\n", encoding="utf-8")
    assert load_rows(tmp_path / "rows.parquet") == load_rows(tmp_path / "rows.jsonl") == [ARC_ROW]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.parquet", b"PAR1 not really", "damaged, or not parquet"),
        ("rows.parquet", b"", "damaged, or not parquet"),
        ("rows.jsonl", b'{"a": 1}\n{"a": ', "rows.jsonl, line 2"),
        ("rows.jsonl", b'{"a": 1}\n[1]', "rows.jsonl, line 2"),
        ("rows.jsonl", b'{"a": "\xe9"}', "rows.jsonl, line 1"),
        ("rows.csv", b"a,b", "use .parquet or .jsonl"),
    ],
)
def test_a_file_of_rows_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_rows(tmp_path / name)


def test_a_flipped_bit_in_parquet_never_passes_for_data(tmp_path):
    """With page checksums; without them half of all flips go unseen (200 tried)."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    path = tmp_path / "rows.parquet"
    rows = [{**CLIPS, "question": f"{index} {CLIPS['question']}"} for index in range(50)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, write_page_checksum=True, compression="none")
    good, rng, silent = path.read_bytes(), random.Random(0), 0
    for _ in range(60):
        flipped = bytearray(good)
        place = 4 + int(rng.random() * (len(good) // 2))
        flipped[place] ^= 1 << int(rng.random() * 8)
        path.write_bytes(flipped)
        with contextlib.suppress(DataError):
            silent += load_rows(path) != rows
    assert silent == 0


def test_a_missing_file_of_rows_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        load_rows(tmp_path / "rows.parquet")


# The module


def test_importing_tasks_loads_neither_torch_nor_pyarrow():
    heavy = "{'torch', 'pyarrow', 'datasets', 'numpy'}"
    code = f"import sys, nanolab.tasks; print({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert result.stdout.strip() == "set()", result.stdout + result.stderr
