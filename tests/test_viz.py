"""Static pictures: each has words beside it, text from outside is inert, and numbers are what they claim."""

from __future__ import annotations

import html
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from nanolab import viz
from nanolab.errors import ConfigError, DataError
from nanolab.model import GPT, GPTConfig
from nanolab.tokenizer import Tokenizer
from nanolab.viz import output
from nanolab.viz.tokens import _documents, shade, visible
from nanolab.viz.words import cosines, project, word_ids, word_vectors

TEXT = "the cat and the dog and the cow saw a horse in the garden. one two three four five. " * 20


class Page(HTMLParser):
    """Tags and text of some HTML, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def shown(monkeypatch):
    bundles: list[dict[str, str]] = []
    monkeypatch.setattr(output, "publish", lambda data, *rest, **more: bundles.append(data))
    return bundles


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT], 290)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    size = tokenizer.get_vocab_size()
    return GPT(GPTConfig(sequence_len=16, vocab_size=size, n_layer=1, n_head=1, n_kv_head=1, n_embd=32))


def picture(bundle: dict[str, str]) -> dict[str, str | None]:
    page = Page(bundle["text/html"])
    assert page.tags == ["img"]
    return page.attributes[0]


# ---- every picture has words


DRAWINGS = {
    "lines": lambda: viz.lines({"a": ([1, 2], [3, 4])}, xlabel="step", ylabel="loss (nats)"),
    "bars": lambda: viz.bars({"a": 1.0, "b": 2.0}, ylabel="share right"),
    "grouped bars": lambda: viz.bars({"a": {"x": 1, "y": 2}, "b": {"x": 3}}, ylabel="share"),
    "heatmap": lambda: viz.heatmap([[1, 2], [3, 4]], label="weight", numbers=True),
    "no lines": lambda: viz.lines({}),
    "no bars": lambda: viz.bars({}),
    "empty line": lambda: viz.lines({"a": ([], [])}, logx=True, logy=True),
    "one point": lambda: viz.lines({"a": ([1], [1])}, logy=True),
    "not numbers": lambda: viz.lines({"a": ([1, 2, 3], [math.nan, 1, math.inf])}, logy=True),
    "zero on log axes": lambda: viz.lines({"a": ([0, 1, 2], [0, -1, 5])}, logx=True, logy=True),
    "bars not a number": lambda: viz.bars({"a": math.nan, "b": 1.0}),
    "heatmap not a number": lambda: viz.heatmap([[math.nan, math.nan]], numbers=True),
    "heatmap of a tensor": lambda: viz.heatmap(torch.randn(3, 3, requires_grad=True).bfloat16()),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_picture_has_alt_and_plain_text(shown, name):
    DRAWINGS[name]()
    (bundle,) = shown
    attributes = picture(bundle)
    assert attributes["alt"] and attributes["alt"] == bundle["text/plain"]
    assert str(attributes["src"]).startswith("data:image/png;base64,")
    assert len(bundle["text/html"]) < 40_000


def test_a_picture_without_words_is_refused(shown):
    with pytest.raises(ConfigError, match="Say in alt"):
        viz.show(output.new_figure(), alt=" ")


def test_given_words_come_first_and_values_follow(shown):
    viz.bars({"base": 0.125}, ylabel="share right", alt="Accuracy of the model")
    assert shown[0]["text/plain"] == "Accuracy of the model. share right: base: 0.125."


def test_alt_cannot_break_out_of_the_tag(shown):
    viz.lines({"a": ([1], [1])}, alt='"><script>alert(1)</script>')
    assert Page(shown[0]["text/html"]).tags == ["img"]


def test_lines_of_unequal_length_name_the_line(shown):
    with pytest.raises(ConfigError, match="'short': 2 x and 1 y"):
        viz.lines({"short": ([1, 2], [1])})


def test_nothing_touches_pyplot(shown):
    import sys

    viz.lines({"a": ([1, 2], [3, 4])})
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_without_a_kernel_the_words_are_printed(capsys):
    viz.bars({"a": 1.0}, ylabel="share", alt="One bar")
    assert capsys.readouterr().out == "One bar. share: a: 1.\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345, "12,345"),
        (3.14159, "3.14"),
        (0.00123, "0.00123"),
        (6.29e6, "6.29 million"),
        (0, "0"),
        (-0.0, "0"),
        (math.nan, "not a number"),
    ],
)
def test_numbers_read_well(value, text):
    assert output.number(value) == text


# ---- chips


def test_chips_escape_whatever_the_text_says(shown):
    nasty = [
        "<script>alert(1)</script>",
        '"onmouseover="x',
        "</code></div>",
        "<img src=x onerror=y>",
        "&amp;",
    ]
    viz.chips(nasty, caption="<b>caption</b>", alt='"><i>', unit="<u>", values=[1, 2, 3, 4, 5])
    page = Page(shown[0]["text/html"])
    assert set(page.tags) <= {"div", "code", "sub", "wbr"}
    assert not {name for attributes in page.attributes for name in attributes} - {
        "style",
        "title",
        "role",
        "aria-label",
    }
    assert all(piece.replace(" ", "·") in page.text for piece in nasty)


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        (" cat", "·cat"), ("  ", "··"), ("\n", "↵"), ("\\n", "↵"), ("\t", "⇥"), ("<e2 80>", "e2 80"),
        (b"\xe2\x80", "e2 80"), (b" caf\xc3\xa9", "·café"), ("\u200b", "\\u200b"), ("\x00", "\\x00"), ("", "∅"),
        ("<|bos|>", "<|bos|>"), (b"\xff\xef\xbf\xbd", "ff ef bf bd"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_shown(piece, text):
    assert visible(piece) == text


def test_tokens_of_the_tokenizer_stay_visible(tokenizer):
    assert all(visible(tokenizer.token_text(id)).strip() for id in range(tokenizer.get_vocab_size()))


def chip_styles(bundle: dict[str, str]) -> list[str]:
    return re.findall(r'<code title="token \d+[^"]*" style="([^"]*)"', bundle["text/html"])


def test_special_tokens_look_special_and_forged_ones_do_not(shown):
    viz.chips(["<|bos|>", "hi"])
    viz.chips(["<|bos|>", "hi"], special=[0, 1])
    viz.chips(["<|bos|>", "hi"], special={"hi"})
    looks = [["bold" in style for style in chip_styles(bundle)] for bundle in shown]
    assert looks == [[True, False], [False, True], [False, True]]


def test_a_tensor_without_dimensions_is_a_number_in_a_table(shown):
    viz.table([{"a": torch.tensor(0.25), "b": torch.tensor(3), "c": torch.tensor(True)}])
    assert shown[0]["text/plain"].split() == ["a", "b", "c", "0.25", "3", "yes"]


def test_masked_tokens_are_dimmed_and_named(shown):
    viz.chips(["a", "b"], mask=[0, 1])
    first, second = chip_styles(shown[0])
    assert "color:#767676" in first and "color:#767676" not in second
    assert "a (dimmed) | b" in shown[0]["text/plain"]
    assert "masked: not in the loss" in shown[0]["text/html"]


def test_values_are_in_colour_in_words_and_in_blocks(shown):
    viz.chips(["a", "b", "c"], values=[0.0, 4.0, math.nan], unit="bits")
    page = html.unescape(shown[0]["text/html"])
    assert 'title="token 1: 4 bits"' in page
    assert "a 0 | b 4 | c not a number" in shown[0]["text/plain"]
    assert "▁" in page and "█" in page


def test_shades_tell_more_from_less_and_sign():
    assert shade(0, 1) == "#ffffff"
    reds = [int(shade(value, 1)[5:], 16) for value in (0, 0.3, 0.6, 1.0)]
    assert reds == sorted(reds, reverse=True)
    assert shade(-1, 1) != shade(1, 1)
    assert shade(math.nan, 1) == "#eeeeee"


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.75, 1, -1])
def test_text_on_every_shade_can_be_read(share):
    channels = [int(shade(share, 1)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    brightness = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert (brightness + 0.05) / (0.0056 + 0.05) > 4.5  # WCAG contrast with #111


def test_no_tokens_are_no_error(shown):
    viz.chips([])
    assert "no tokens" in shown[0]["text/html"]


# ---- tables


def test_a_table_shows_rows_and_escapes_them(shown):
    viz.table([{"stage": "<b>base", "loss": 2.1034}, {"stage": "sft", "steps": 1200}], caption="Stages")
    page = Page(shown[0]["text/html"])
    assert page.tags.count("tr") == 3 and page.tags.count("td") == 6
    assert "b" not in page.tags and "<b>base" in page.text
    assert all("align" in attributes for attributes in page.attributes if "style" in attributes)  # GitHub
    assert shown[0]["text/plain"].splitlines() == [
        "Stages", "stage    loss  steps", "<b>base  2.1", "sft            1,200",
    ]  # fmt: skip


def test_tables_from_dicts(shown):
    viz.table({"profile": "laptop", "ok": True})
    viz.table({"base": {"loss": 2}, "mid": {"loss": 1}})
    viz.table({"x": [1, 2], "y": [3]})
    plain = [bundle["text/plain"].splitlines() for bundle in shown]
    assert plain[0] == ["profile  laptop", "ok       yes"]
    assert plain[1] == ["      loss", "base     2", "mid      1"]
    assert [line.split() for line in plain[2]] == [["x", "y"], ["1", "3"], ["2"]]


# ---- strips


def test_strips_tell_documents_bos_and_padding_apart():
    bos = 9
    batch = np.array([[9, 1, 1, 9, 2], [2, 2, 9, 3, 9], [9, 4, 9, 9, 9]])
    fields, documents = _documents(batch, bos)
    assert fields.tolist() == [[6, 0, 0, 6, 1], [1, 1, 6, 2, 6], [6, 4, 7, 7, 7]]
    assert documents == 5


def test_strips_say_how_much_is_padding(shown, tokenizer):
    bos = tokenizer.get_bos_token_id()
    viz.strips(torch.tensor([[bos, 5, 6, 7], [bos, 5, bos, bos]]), tokenizer, title="A batch")
    assert "2 rows of 4 tokens hold 2 documents; 25% is padding" in str(picture(shown[0])["alt"])


# ---- embeddings


def test_shares_and_coordinates_are_those_of_pca():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(0).normal(size=(12, 5)) * [5, 3, 1, 1, 1]
    coordinates, shares = project(vectors)
    assert shares == pytest.approx(PCA(n_components=2).fit(vectors).explained_variance_ratio_)
    centred = vectors - vectors.mean(axis=0)
    scales = np.linalg.svd(centred, compute_uv=False)
    assert shares == pytest.approx(scales[:2] ** 2 / (scales**2).sum())
    assert coordinates.std(axis=0) * math.sqrt(12) == pytest.approx(scales[:2])


def test_the_map_returns_coordinates_and_names_the_variance(shown, model, tokenizer):
    groups = {"animals": ["cat", "dog", "cow"], "numbers": ["one", "two"]}
    coordinates = viz.embedding_map(model, tokenizer, groups, title="Before")
    words = ["cat", "dog", "cow", "one", "two"]
    expected, shares = project(word_vectors(model, tokenizer, words))
    assert coordinates == pytest.approx(expected)
    alt = str(picture(shown[0])["alt"])
    assert f"{shares.sum():.0%} of the variance" in alt and "animals: cat, dog, cow" in alt


def test_groups_in_any_form_give_the_same_map(shown, model, tokenizer):
    words = ["cat", "dog", "one"]
    for groups in (
        {"a": ["cat", "dog"], "n": ["one"]},
        {"cat": "a", "dog": "a", "one": "n"},
        ["a", "a", "n"],
    ):
        viz.embedding_map(model, tokenizer, words, groups)
    assert len({bundle["text/plain"] for bundle in shown}) == 1


def test_too_few_words_or_none_are_named(model, tokenizer):
    with pytest.raises(ConfigError, match="at least 3"):
        viz.embedding_map(model, tokenizer, ["cat", "dog"])
    with pytest.raises(DataError, match="no word"):
        viz.nearest(model, tokenizer, " ")


def test_a_word_is_the_mean_of_its_tokens(model, tokenizer):
    ids = word_ids(tokenizer, "zebra")
    assert len(ids) > 1
    weight = model.get_parameter("transformer.wte.weight").detach()
    assert word_vectors(model, tokenizer, ["zebra"])[0] == pytest.approx(weight[ids].mean(dim=0).numpy())


def test_nearest_finds_a_copied_embedding(tokenizer, model):
    one, other = (word_ids(tokenizer, word) for word in ("the", "and"))
    assert len(one) == len(other) == 1
    with torch.no_grad():
        weight = model.get_parameter("transformer.wte.weight")
        weight[other[0]] = 3 * weight[one[0]]
    found = viz.nearest(model, tokenizer, "the", 4)
    assert found[0] == (" and", pytest.approx(1.0, abs=1e-5))
    assert len(found) == 4 and " the" not in [text for text, _ in found]
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)


def test_cosines_of_a_zero_vector_are_zero():
    assert cosines(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 1.0]])).ravel() == pytest.approx(
        [0, 0.5**0.5]
    )


def test_cosine_table_is_symmetric_with_ones(shown, model, tokenizer):
    matrix = viz.cosine_table(model, tokenizer, ["horse", "garden", "one"])
    assert matrix == pytest.approx(matrix.T) and np.diag(matrix) == pytest.approx(1)
    assert "3 by 3 values of cosine" in str(picture(shown[0])["alt"])
