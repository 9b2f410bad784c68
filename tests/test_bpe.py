"""The readable BPE: by hand, and against rustbpe and the fast encoder."""

from __future__ import annotations

import regex
import rustbpe
from hypothesis import given, settings
from hypothesis import strategies as st

from nanolab import bpe
from nanolab.tokenizer import Tokenizer, split_pattern

PATTERN = split_pattern()
WORDS = r"\w+|\W+"

# Only characters that Python's tables know: a newer Unicode may class the others differently in Rust.
characters = st.characters(exclude_categories=("Cs", "Cn"))
texts = st.one_of(
    st.text(characters),
    st.text(st.sampled_from("abcdeht AE's1239 \t\r\n!.ſ")),
    st.lists(
        st.sampled_from(["the", " cat", "  ", "\n", "they'll", " 2024", "日本", "é", "🙂", "<|bos|>"])
    ).map("".join),
)
repetitive = st.lists(st.text(st.sampled_from("ab c!é1\n"), max_size=40), min_size=1, max_size=5)


def test_the_worked_example_of_the_docstring():
    merges = bpe.train(["hug hugs mug"], 258, WORDS)
    assert merges == {(ord("u"), ord("g")): 256, (ord("h"), 256): 257}
    ids = bpe.encode("hugs mugs", bpe.ranks_of(merges), WORDS)
    assert ids == [257, ord("s"), ord(" "), ord("m"), 256, ord("s")]


def test_wikipedias_example():
    """aaabdaaabac -> XdXac with Z=aa, Y=ab, X=ZY (en.wikipedia.org/wiki/Byte-pair_encoding)."""
    merges = bpe.train(["aaabdaaabac"], 259, ".+")
    assert list(merges) == [(97, 97), (97, 98), (256, 257)]
    assert bpe.encode("aaabdaaabac", bpe.ranks_of(merges), ".+") == [258, ord("d"), 258, ord("a"), ord("c")]


def test_pairs_are_counted_once_for_each_place():
    assert bpe.count_pairs({(1, 2, 3, 1, 2): 5}) == {(1, 2): 10, (2, 3): 5, (3, 1): 5}


def test_a_run_merges_from_the_left():
    assert bpe.merge((1, 1, 1, 2), (1, 1), 9) == (9, 1, 2)
    assert bpe.merge((1, 2, 1), (1, 2), 9) == (9, 1)
    assert bpe.merge((), (1, 2), 9) == ()


def test_of_equally_frequent_pairs_the_smallest_goes_first():
    assert list(bpe.train(["cd ab"], 258, WORDS)) == [(ord("a"), ord("b")), (ord("c"), ord("d"))]


def test_training_ends_when_nothing_is_left_to_merge():
    assert len(bpe.train(["ab"], 1000, WORDS)) == 1
    assert bpe.train([], 1000, WORDS) == {}


@given(repetitive, st.integers(256, 300))
@settings(max_examples=150)
def test_the_merges_are_those_of_rustbpe(some, vocab_size):
    fast = rustbpe.Tokenizer()
    fast.train_from_iterator(iter(some), vocab_size, pattern=PATTERN)
    ranks = bpe.ranks_of(bpe.train(some, vocab_size, PATTERN))
    assert list(ranks.items()) == [(bytes(token), rank) for token, rank in fast.get_mergeable_ranks()]


TEXT = "the cat, they'll 2024 日本 héhé 🙂🙂   \n\n <|bos|> abcabc the there"
LEARNED = bpe.ranks_of(bpe.train([TEXT], 310, PATTERN))
FAST = Tokenizer(LEARNED, PATTERN)


@given(texts)
@settings(max_examples=300)
def test_the_fast_encoder_agrees_with_this_one(text):
    assert FAST.encode(text) == bpe.encode(text, LEARNED, PATTERN)


@given(repetitive, st.text(st.sampled_from("ab c!é1\n"), max_size=40))
@settings(max_examples=40)
def test_they_agree_where_many_merges_compete(some, text):
    ranks = bpe.ranks_of(bpe.train(some, 300, PATTERN))
    assert Tokenizer(ranks, PATTERN).encode(text) == bpe.encode(text, ranks, PATTERN)


def test_the_earlier_merge_goes_first():
    """With ab before bc, "abc" is ab c; the other way round, a bc."""
    single = {bytes([byte]): byte for byte in range(256)}
    assert bpe.encode("abc", {**single, b"ab": 256, b"bc": 257}, WORDS) == [256, ord("c")]
    assert bpe.encode("abc", {**single, b"bc": 256, b"ab": 257}, WORDS) == [ord("a"), 256]


@given(texts)
def test_the_pattern_loses_nothing(text):
    assert "".join(regex.findall(PATTERN, text)) == text
