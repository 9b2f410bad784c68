"""What notebook 01 draws is true of the tokenizers it draws."""

from __future__ import annotations

import pytest

from nanolab import bpe
from nanolab.errors import DataError
from nanolab.lessons import tokens
from nanolab.tokenizer import Tokenizer, split_pattern

TEXT = "the cat sat there and then the other cat sat too. 417 + 58 = 475, and the 475 cats sat. " * 4


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT], 280)


def test_layers_cover_the_same_bytes(tokenizer):
    rows = tokens.layers("hello 👋 naïve", tokenizer).rows
    widths = {name: sum(cell.width for cell in cells) for name, cells in rows.items()}
    assert len(set(widths.values())) == 1 and widths["bytes"] == len("hello 👋 naïve".encode())


def test_layers_count_characters_bytes_and_tokens(tokenizer):
    counts = tokens.layers("a👋", tokenizer).counts()
    assert counts == {"characters": 2, "bytes": 5, "tokens": 5}


def test_layers_escape_what_could_be_markup():
    page = tokens.layers("<b>")._repr_html_()
    assert "&lt;" in page and "<b>" not in page


def test_growing_learns_the_merges_of_bpe():
    merges = list(bpe.ranks_of(bpe.train([TEXT], 276, split_pattern())))[256:]
    assert [step.token for step in tokens.grow(TEXT, 20)] == merges


def test_each_merge_makes_tokens_longer():
    lengths = [step.bytes_per_token for step in tokens.grow(TEXT, 20)]
    assert lengths == sorted(lengths) and lengths[0] > 1


def test_growing_ends_when_nothing_is_left_to_merge():
    assert len(list(tokens.grow("ab", 50))) == 1


def test_bytes_per_token_is_one_where_every_byte_is_a_token():
    assert tokens.bytes_per_token(Tokenizer.train([TEXT], 265), ["cat 👋"]) == 1.0


def test_bytes_per_token_of_nothing_is_refused(tokenizer):
    with pytest.raises(DataError, match="no text"):
        tokens.bytes_per_token(tokenizer, [""])


def test_longest_tokens_come_first_and_are_not_special(tokenizer):
    texts = tokens.longest(tokenizer, 5)
    assert [len(text) for text in texts] == sorted((len(text) for text in texts), reverse=True)
    assert len(texts[0]) > 2 and not any("|" in text for text in texts)


def test_one_digit_a_token_makes_ten_number_tokens():
    page = tokens.page_of_sums(500)
    one = tokens.number_tokens(_digits(1), [page])
    three = tokens.number_tokens(_digits(3), [page])
    assert set(one) == set("0123456789") and len(three) > 100
    assert sum(one.values()) == sum(char.isdigit() for char in page)


def _digits(count: int) -> Tokenizer:
    return Tokenizer.train([tokens.page_of_sums(2_000), TEXT], 265 + (6 if count == 1 else 300), digits=count)


def test_the_page_of_sums_is_right_and_the_same_each_time():
    assert tokens.page_of_sums(20) == tokens.page_of_sums(20) != tokens.page_of_sums(20, seed=1)
    for line in tokens.page_of_sums(50).splitlines():
        left, right = line.split(" = ")
        a, b = left.split(" + ")
        assert int(a) + int(b) == int(right)


def test_gpt2_is_not_fetched_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert tokens.gpt2() is None


def test_samples_say_something_in_every_language(tokenizer):
    for text in tokens.SAMPLES.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text and len(text) > 20
