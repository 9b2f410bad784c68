from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanolab.corpus import ListSource
from nanolab.data import ConversationBatches, PackedBatches
from nanolab.errors import ConfigError, DataError
from nanolab.tasks.base import Task

BOS = 256


class Bytes:
    """A tokenizer whose ids are bytes, and 256 and above the special tokens."""

    names = ("bos", "user_start", "user_end", "assistant_start", "assistant_end")
    names += ("python_start", "python_end", "output_start", "output_end")

    def encode(self, text):
        return list(text.encode()) if isinstance(text, str) else [list(one.encode()) for one in text]

    def encode_special(self, name: str) -> int:
        return BOS + self.names.index(name.strip("<|>"))

    def get_bos_token_id(self) -> int:
        return BOS


def stream_of(documents: list[str]) -> list[int]:
    return [token for text in documents if text for token in (BOS, *text.encode())]


def packed(documents, rows: int = 2, context: int = 3, **options) -> PackedBatches:
    return PackedBatches(documents, Bytes(), rows, context, **options)


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def through_json(state: dict) -> dict:
    return json.loads(json.dumps(state))


# ---- text


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text("abc", max_size=9), min_size=1, max_size=200).filter(any),
    st.integers(1, 4),
    st.integers(1, 7),
)
def test_every_token_of_the_stream_but_the_first_is_a_target_exactly_once(documents, rows, context):
    batches = packed(documents, rows, context)
    once = stream_of(documents)
    expected = once * (3 + 5 * rows * context // len(once))
    targets = []
    for inputs, wanted in islice(batches, 5):
        assert inputs.shape == wanted.shape == (rows, context)
        assert inputs.dtype == wanted.dtype == torch.int64
        assert inputs.flatten().tolist() == [*expected[len(targets) :]][: rows * context]
        targets += wanted.flatten().tolist()
    assert targets == expected[1 : len(targets) + 1]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("abc", max_size=9), min_size=1, max_size=300).filter(any),
    st.integers(0, 9),
    st.sampled_from([None, 0, 7]),
)
def test_a_resumed_stream_goes_on_exactly(documents, steps, seed):
    unbroken = packed(documents, seed=seed)
    for _ in range(steps):
        next(unbroken)
    resumed = packed(documents, seed=seed)
    resumed.load_state_dict(through_json(unbroken.state_dict()))
    for _ in range(30):
        assert same(next(unbroken), next(resumed))
    assert unbroken.state_dict() == resumed.state_dict()


def test_rows_may_change_on_resume():
    documents = [f"document {i}" for i in range(90)]
    first, second = packed(documents, rows=2), packed(documents, rows=4)
    next(first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(next(second)[0], torch.cat([next(first)[0], next(first)[0]]))


def test_a_seed_draws_a_new_order_of_groups_each_epoch():
    documents = [f"{i:04d}" for i in range(64 * 8)]
    size = len(stream_of(documents))
    batches = packed(documents, rows=1, context=size, seed=3)
    epochs = [next(batches)[0].flatten().tolist() for _ in range(3)]
    assert all(sorted(epoch) == sorted(stream_of(documents)) for epoch in epochs)
    assert epochs[0] != stream_of(documents) and epochs[0] != epochs[1] != epochs[2]
    again = packed(documents, rows=1, context=size, seed=3)
    assert [next(again)[0].flatten().tolist() for _ in range(3)] == epochs


@pytest.mark.parametrize("documents", [[], [""], [""] * 1000])
def test_a_source_without_text_is_an_error_and_no_hang(documents):
    with pytest.raises(DataError, match="no text to train on"):
        next(packed(documents))


def test_text_may_be_sparse():
    assert next(packed([""] * 500 + ["abc"]))[0].flatten().tolist() == stream_of(["abc", "abc"])[:6]


@pytest.mark.parametrize(
    ("documents", "seed", "named"), [(["other"], None, "another source"), (["abc"], 5, "another seed")]
)
def test_a_position_in_other_text_is_refused(documents, seed, named):
    with pytest.raises(DataError, match=named):
        packed(documents, seed=seed).load_state_dict(packed(["abc"]).state_dict())


def test_a_source_is_read_group_by_group():
    """A shard may hold a gigabyte: two batches read no more of it than they need."""

    class Counting(ListSource):
        def __init__(self, documents):
            super().__init__(documents)
            self.read = []

        def group(self, index):
            self.read.append(index)
            return super().group(index)

    source = Counting(["x" * 10] * 6400)
    batches = packed(source, rows=4, context=100)
    next(batches), next(batches)
    assert source.read == [0, 1]


# ---- conversations


class Talk(Task):
    """Conversation i: the user says `asks[i]`, the assistant `answers[i]`."""

    def __init__(self, asks: list[str], answers: list[str]) -> None:
        super().__init__()
        self.pairs = list(zip(asks, answers, strict=True))

    def num_examples(self) -> int:
        return len(self.pairs)

    def get_example(self, index):
        ask, answer = self.pairs[index]
        messages = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        return {"messages": messages}


def talk(count: int, seed: int = 0) -> Talk:
    rng = random.Random(seed)
    return Talk([f"{i}?" for i in range(count)], ["y" * rng.randrange(1, 20) + str(i) for i in range(count)])


def conversations(task: Task, rows: int = 3, context: int = 60, **options) -> ConversationBatches:
    return ConversationBatches(task, Bytes(), rows, context, **options)


def rendered(task: Talk, index: int) -> list[int]:
    ask, answer = task.pairs[index]
    return [BOS, BOS + 1, *ask.encode(), BOS + 2, BOS + 3, *answer.encode(), BOS + 4]


def test_rows_hold_whole_conversations_and_every_one_equally_often():
    task = talk(200)
    known = {tuple(rendered(task, i)): i for i in range(200)}
    batches, seen = conversations(task, supervise="all"), []
    for inputs, targets in islice(batches, 60):
        for first, row in zip(inputs[:, 0].tolist(), targets.tolist(), strict=True):
            tokens = [first, *(token for token in row if token >= 0)]
            starts = [place for place, token in enumerate(tokens) if token == BOS] + [len(tokens)]
            seen += [known[tuple(tokens[a:b])] for a, b in pairwise(starts)]
    state = batches.state_dict()
    counts = Counter(seen + state["buffer"])
    assert state["epoch"] >= 2 and len(counts) == 200
    assert set(counts.values()) == {state["epoch"], state["epoch"] + 1}


def test_the_assistant_s_words_and_its_end_are_the_only_targets():
    task = Talk(["hi"], ["yes"])
    inputs, targets = next(conversations(task, rows=1, context=11))
    assert inputs[0].tolist() == [*rendered(task, 0), BOS]
    assert targets[0].tolist() == [-1] * 5 + [*b"yes", BOS + 4] + [-1] * 2


def test_supervising_all_leaves_out_only_the_padding():
    task = Talk(["hi"], ["yes"])
    length = len(rendered(task, 0))
    inputs, targets = next(conversations(task, rows=1, context=2 * length + 1, supervise="all"))
    assert targets[0].tolist() == (rendered(task, 0) * 2)[1:] + [-1] * 2
    assert inputs[0].tolist() == rendered(task, 0) * 2 + [BOS]


def test_little_of_a_row_is_padding():
    batches = conversations(talk(300), rows=8, context=128, supervise="all")
    targets = torch.cat([next(batches)[1] for _ in range(10)])
    assert targets.eq(-1).float().mean() < 0.03


def test_targets_are_the_next_input():
    for inputs, targets in islice(conversations(talk(50), supervise="all"), 5):
        following, wanted = inputs[:, 1:], targets[:, :-1]
        assert torch.equal(following[wanted >= 0], wanted[wanted >= 0])


def test_a_long_conversation_is_cut_and_a_hopeless_one_dropped():
    task = Talk(["hi", "x" * 100, "hi"], ["y" * 100, "never seen", "yes"])
    for inputs, targets in islice(conversations(task, rows=4, context=20), 8):
        assert targets.ge(0).any(dim=1).all()
        assert not inputs.eq(ord("x")).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 150), st.integers(0, 12), st.integers(0, 3))
def test_resumed_conversations_go_on_exactly(count, steps, seed):
    task = talk(count)
    unbroken = conversations(task, seed=seed)
    for _ in range(steps):
        next(unbroken)
    resumed = conversations(task, seed=seed)
    resumed.load_state_dict(through_json(unbroken.state_dict()))
    for _ in range(8):
        assert same(next(unbroken), next(resumed))
    assert unbroken.state_dict() == resumed.state_dict()


@pytest.mark.parametrize("task", [talk(0), Talk(["x" * 99] * 5, ["y"] * 5)])
def test_a_task_with_nothing_to_learn_is_an_error_and_no_hang(task):
    with pytest.raises(DataError, match="no conversation of Talk leaves anything to learn within 60 tokens"):
        next(conversations(task))


def test_a_position_in_another_task_is_refused():
    state = conversations(talk(5)).state_dict()
    with pytest.raises(DataError, match="another conversations"):
        conversations(talk(6)).load_state_dict(state)
    with pytest.raises(DataError, match="another seed"):
        conversations(talk(5), seed=1).load_state_dict(state)


def test_an_unknown_supervision_is_refused():
    with pytest.raises(ConfigError, match="choose assistant or all"):
        conversations(talk(5), supervise="user")
