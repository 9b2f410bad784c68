"""The widgets without a browser: what clicks do, what is shown, and that no text turns into markup."""

from __future__ import annotations

import math
import re

import pytest
import torch

from nanolab.autopsy import examine, read
from nanolab.chat import calls_to_parts
from nanolab.errors import ConfigError
from nanolab.model import GPT, GPTConfig
from nanolab.tokenizer import Tokenizer
from nanolab.widgets import chat, token_autopsy
from nanolab.widgets import common as common_module
from nanolab.widgets.autopsy import AutopsyView
from nanolab.widgets.chatbox import ChatView, static_chat, transcript
from nanolab.widgets.common import SURPRISE, bits, blocks, percent, visible
from nanolab.widgets.words import STATIC_ROWS, static_autopsy

TEXT = "the cat sat on the mat. 3+4=7, the cat said."
EVIL = "<img src=x onerror=alert(1)> & <b>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT + EVIL] * 4, vocab_size=295)


def random_model(tokenizer: Tokenizer, seed: int, context: int = 128) -> GPT:
    torch.manual_seed(seed)
    config = GPTConfig(context, tokenizer.get_vocab_size(), n_layer=1, n_head=1, n_kv_head=1, n_embd=32)
    model = GPT(config)
    torch.nn.init.normal_(model.lm_head.weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def model(tokenizer) -> GPT:
    return random_model(tokenizer, 0)


@pytest.fixture
def view(model, tokenizer) -> AutopsyView:
    ids, mask = read(tokenizer, TEXT)
    models = {"base": model, "sft": random_model(tokenizer, 1)}
    return AutopsyView({name: examine(one, tokenizer, ids, mask) for name, one in models.items()})


@pytest.fixture
def bundles(monkeypatch) -> list[dict]:
    """What the widgets would have displayed."""
    shown: list[dict] = []
    monkeypatch.setattr(common_module, "publish", shown.append)
    return shown


def chip_texts(view: AutopsyView) -> list[str]:
    return [button.description for button in view.chips.children]


# ---- autopsy


def test_every_token_is_a_chip_and_the_last_chip_is_the_future(view, tokenizer):
    texts = chip_texts(view)
    assert texts[0] == "<|bos|>" and texts[-1] == "next?"
    assert "".join(texts[1:-1]).replace("·", " ") == TEXT
    assert view.selected == len(view.ids) and "write next" in view.details.value


def test_a_click_shows_the_token_and_says_when_the_prediction_was_made(view):
    view.chips.children[3].click()
    token = view.autopsy.at(3)
    assert view.selected == view.place.value == 3
    assert "made before this token was seen" in view.details.value
    assert f"rank {token.rank} of" in view.details.value and f"id {token.id}" in view.details.value
    assert (
        f"{token.bits:.2f} bits" in view.details.value and f"{token.entropy:.2f} bits" in view.details.value
    )


def test_only_the_selected_chip_is_framed(view):
    for position in (3, 5, 0):
        view.chips.children[position].click()
        framed = [i for i, chip in enumerate(view.chips.children) if chip.layout is view._marked]
        assert framed == [position]


def test_arrows_and_the_slider_walk_and_stop_at_the_ends(view):
    view.place.value = 0
    assert view.selected == 0 and view.left.disabled and "nothing stands before it" in view.details.value
    view.right.click()
    view.right.click()
    view.left.click()
    assert view.selected == 1
    view.place.value = len(view.ids)
    assert view.right.disabled and not view.left.disabled


def test_a_chip_is_coloured_by_its_surprise_and_ink_stays_readable(view):
    for chip, token in zip(view.chips.children[1:], view.autopsy.tokens[1:], strict=False):
        back = next(colour for limit, colour, _ in SURPRISE if token.bits <= limit)
        assert chip.style.button_color == back


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_colour_scale_is_a_scale_of_lightness_with_readable_ink():
    light = [luminance(back) for _, back, _ in SURPRISE]
    assert light == sorted(light, reverse=True)
    for _, back, ink in SURPRISE:
        bright, dark = sorted((luminance(back), luminance(ink)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_sliders_change_the_numbers_and_no_model_reads(view, monkeypatch):
    view.chips.children[4].click()
    monkeypatch.setattr(GPT, "forward", lambda *_: pytest.fail("a forward pass"))
    before = view.details.value
    view.temperature.value = 2.0
    assert view.details.value != before and "At temperature 2.0" in view.details.value
    view.k.value = 3
    assert len(view.list.children) in (3, 4) and view.bars.value.count("rank ") == len(view.list.children)
    view.which.value = "sft"


def test_the_true_token_is_pinned_and_cannot_be_chosen(view):
    view.k.value = 1
    for position in range(1, len(view.ids)):
        view.select(position)
        true = [b for b in view.list.children if b.disabled]
        assert len(true) == 1 and true[0].description == visible(view.token.text)
        assert "the token of the text" in view.bars.value


def test_a_click_on_a_candidate_substitutes_it_and_the_original_comes_back(view):
    original, view.k.value = view.ids, 3
    view.chips.children[4].click()
    number = next(i for i, one in enumerate(view.token.top) if not one.true)
    chosen = view.token.top[number]
    view.list.children[number].click()
    assert view.ids == (*original[:4], chosen.id, *original[5:])
    assert chip_texts(view)[4] == visible(chosen.text)
    assert view.chips.children[4].style.font_weight == "bold"
    assert all(one.ids == view.ids for one in view.autopsies.values())
    assert "is now" in view.message.value and not view.undo.disabled
    view.undo.click()
    assert view.ids == original and view.undo.disabled and view.message.value == ""


def test_candidates_behind_the_end_write_on(view):
    original = view.ids
    for _ in range(3):
        view.list.children[0].click()
    assert view.ids[: len(original)] == original and len(view.ids) == len(original) + 3
    assert len(view.chips.children) == len(view.ids) + 1 == view.place.max + 1
    assert view.selected == len(view.ids)
    view.chips.children[-2].click()
    assert view.selected == len(view.ids) - 1
    view.undo.click()
    assert len(view.chips.children) == len(original) + 1 and view.selected == len(original)


def test_writing_past_the_context_is_one_line_not_a_traceback(tokenizer):
    model = random_model(tokenizer, 0, context=8)
    view = AutopsyView({"model": examine(model, tokenizer, [65] * 8)})
    view.list.children[0].click()
    assert view.message.value.startswith("<b>That did not work:</b> 9 tokens are more than")
    assert len(view.ids) == 8


def test_checkpoints_are_compared_side_by_side_and_the_toggle_recolours(view):
    view.chips.children[4].click()
    for name, autopsy in view.autopsies.items():
        assert f">{name}<" in view.details.value and f">{bits(autopsy.mean_bits)}<" in view.details.value
    before = [chip.style.button_color for chip in view.chips.children]
    view.which.value = "sft"
    assert [chip.style.button_color for chip in view.chips.children] != before
    assert view.selected == 4


def test_a_conversation_shows_special_tokens_and_mask(model, tokenizer):
    messages = [{"role": "user", "content": "cat"}, {"role": "assistant", "content": "mat"}]
    ids, mask = read(tokenizer, {"messages": messages})
    view = AutopsyView({"model": examine(model, tokenizer, ids, mask)})
    for chip, learned, token in zip(view.chips.children, mask, view.autopsy.tokens, strict=False):
        assert chip.style.text_decoration == ("underline" if learned else "none")
        assert chip.style.font_style == ("italic" if token.special else "normal")
    view.chips.children[1].click()
    assert "Mask 0: training passes over it" in view.details.value
    assert "underlined" in view.legend.value


def test_the_static_table_says_the_same_without_any_style(bundles, model, tokenizer):
    token_autopsy(model, tokenizer, TEXT)
    (bundle,) = bundles
    assert {"text/html", "text/plain", "application/vnd.jupyter.widget-view+json"} <= set(bundle)
    styles = set(re.findall(r'style="([^"]*)"', bundle["text/html"]))
    assert styles <= {"text-align:left;"} and "<script" not in bundle["text/html"]
    token = examine(model, tokenizer, read(tokenizer, TEXT)[0]).at(3)
    assert f"{bits(token.bits)} {blocks(token.bits)}" in bundle["text/html"]
    assert f"{bits(token.bits)} {blocks(token.bits)}" in bundle["text/plain"]
    assert "Next would come" in bundle["text/html"]


def test_the_static_table_of_several_checkpoints_has_a_column_each(view):
    text, markup = static_autopsy(view.autopsies)
    assert "base: surprise in bits" in markup and "sft: surprise in bits" in text


def test_a_long_text_is_cut_in_the_table_and_says_so(tokenizer):
    model = random_model(tokenizer, 0, context=STATIC_ROWS + 20)
    text, _ = static_autopsy({"model": examine(model, tokenizer, [65] * (STATIC_ROWS + 7))})
    assert "7 more tokens are not shown here" in text


def test_no_text_turns_into_markup(bundles, model, tokenizer):
    token_autopsy({EVIL: model, "b": model}, tokenizer, EVIL)
    view = AutopsyView({EVIL: examine(model, tokenizer, read(tokenizer, EVIL)[0])})
    shown = [bundles[0]["text/html"]]
    for position in range(len(view.ids) + 1):
        view.select(position)
        shown += [view.details.value, view.bars.value, view.legend.value, view.message.value]
    shown += [transcript([("you", calls_to_parts(EVIL + "<<" + EVIL + "=1>>"))])]
    shown += [static_chat([("you", calls_to_parts(EVIL + "<<1&1=<>>"))])[1]]
    for markup in shown:
        # Each < opens or closes one of our own tags, none of which takes more than a style.
        assert not re.search(r"<(?!/?(?:b|i|u|br|p|code|div|span|table|tr|th|td)\b)", markup)
        assert not re.search(r"&(?!lt;|gt;|amp;|quot;|#x27;)", markup)
    assert all(not re.search(r"<b> ?&|on\w+=", re.sub(r">[^<]*<", "><", markup)) for markup in shown)


def test_no_model_and_a_text_too_long_are_refused(tokenizer, model):
    with pytest.raises(ConfigError, match="no model"):
        token_autopsy({}, tokenizer, "cat")
    with pytest.raises(ConfigError, match="context of 128"):
        token_autopsy(model, tokenizer, "z1" * 100)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "100.0%"),
        (0.123, "12.3%"),
        (0.0012, "0.12%"),
        (0.0, "under 0.001%"),
        (1e-9, "under 0.001%"),
        (math.nan, "–"),
    ],
)
def test_percent(number, text):
    assert percent(number) == text


def test_blanks_and_nothing_are_visible_and_bars_count_bits():
    assert visible(" a b\\n") == "·a·b↵" and visible("") == "∅" and visible("<e2 80>") == "<e2 80>"
    assert [blocks(n) for n in (math.nan, 0.2, 3.2, 99.0)] == ["", "▏", "███", "█" * 16]


# ---- chat


def scripted(view: ChatView, monkeypatch, pieces: list[str]) -> list[list[int]]:
    """Let the model say these pieces; returns the prompts it got."""
    prompts: list[list[int]] = []

    def stream(prompt, **_):
        prompts.append(list(prompt))
        yield from pieces

    monkeypatch.setattr(view.engine, "stream_text", stream)
    return prompts


@pytest.fixture
def talk(model, tokenizer) -> ChatView:
    return ChatView(model, tokenizer, temperature=0.0, top_k=50, max_tokens=40, seed=0)


def test_send_asks_what_stands_in_the_box_and_shows_the_answer(talk, monkeypatch):
    scripted(talk, monkeypatch, ["Hel", "lo"])
    talk.text.value = "  the cat  "
    talk.send.click()
    assert talk.text.value == "" and talk.messages[0]["content"] == "the cat"
    assert "<b>you:</b> the cat" in talk.page.value and "<b>model:</b> Hello" in talk.page.value
    assert not talk.send.disabled


def test_enter_sends_too_and_nothing_is_not_sent(talk, monkeypatch):
    scripted(talk, monkeypatch, ["a"])
    talk.text.value = "cat"
    talk.text._handle_custom_msg({"event": "submit"}, [])
    assert len(talk.messages) == 2
    talk.text.value = "   "
    talk.send.click()
    assert len(talk.messages) == 2


def test_text_streams_into_the_page(talk, monkeypatch):
    monkeypatch.setattr("nanolab.widgets.chatbox.REDRAW_SECONDS", -1)
    scripted(talk, monkeypatch, ["one ", "two ", "three"])
    seen: list[str] = []
    talk.page.observe(lambda change: seen.append(re.sub("<[^>]+>", "", change["new"])), "value")
    talk.ask("count")
    assert [text.partition("model: ")[2] for text in seen] == [
        "",
        "one  ▌",
        "one two  ▌",
        "one two three ▌",
        "one two three",
    ]


def test_tool_calls_are_visible_and_go_back_as_tool_calls(talk, monkeypatch, tokenizer):
    prompts = scripted(talk, monkeypatch, ["3+4=", "<<3+4", "=7", ">>", "7."])
    talk.ask("What is 3+4?")
    assert re.search(r"calculator: 3\+4 → 7</code>7\.", talk.page.value)
    assert "[calculator: 3+4 → 7]7." in static_chat(talk.said)[0]
    talk.ask("And?")
    assert "<|python_start|>3+4<|python_end|><|output_start|>7<|output_end|>7." in tokenizer.decode(
        prompts[1]
    )


def test_a_long_history_loses_its_oldest_turns_and_says_so(talk, monkeypatch, tokenizer):
    prompts = scripted(talk, monkeypatch, ["mat"])
    for number in range(9):
        talk.ask(f"the cat sat on the mat {number}")
    assert len(prompts[-1]) <= 128 - 40
    last = tokenizer.decode(prompts[-1])
    assert "mat 8" in last and "mat 0" not in last
    assert "were left out" in talk.message.value and "mat 0" in talk.page.value


def test_of_a_message_longer_than_the_context_the_end_is_read_and_this_is_said(talk, monkeypatch, tokenizer):
    prompts = scripted(talk, monkeypatch, ["mat"])
    talk.ask(" ".join(f"the cat sat on the mat {number}" for number in range(40)))
    assert len(prompts[-1]) <= 128 - 40 and "mat 39" in tokenizer.decode(prompts[-1])
    assert "of your message only the end fits" in talk.message.value


def test_the_sliders_reach_the_engine(talk, monkeypatch):
    asked: list[dict] = []
    monkeypatch.setattr(talk.engine, "stream_text", lambda prompt, **k: asked.append(k) or iter(["a"]))
    talk.temperature.value, talk.top_k.value = 0.8, 5
    talk.ask("cat")
    talk.ask("cat")
    assert asked[0]["temperature"] == 0.8 and asked[0]["top_k"] == 5 and asked[0]["max_tokens"] == 40
    assert asked[0]["seed"] != asked[1]["seed"]


def test_an_error_of_the_library_is_one_line_and_the_chat_goes_on(talk, monkeypatch):
    talk.ask("half a character: \ud83d")
    assert "surrogate" in talk.message.value and "\n" not in talk.message.value
    assert talk.messages == [] and "gave no answer" in talk.page.value and not talk.send.disabled
    scripted(talk, monkeypatch, ["fine"])
    talk.ask("again")
    assert len(talk.messages) == 2 and "surrogate" not in talk.message.value


def test_stop_keeps_what_was_said(talk, monkeypatch):
    def stream(prompt, **_):
        yield "so far"
        raise KeyboardInterrupt

    monkeypatch.setattr(talk.engine, "stream_text", stream)
    talk.ask("cat")
    assert "so far" in talk.page.value and "Stopped by you" in talk.page.value and len(talk.messages) == 2


def test_a_new_chat_forgets(talk, monkeypatch):
    scripted(talk, monkeypatch, [""])
    talk.ask("cat")
    assert "ended without a word" in talk.page.value
    talk.clear.click()
    assert talk.messages == [] and talk.page.value == ""


def test_a_real_model_answers_and_the_questions_asked_at_once_are_in_the_static_twin(
    bundles, model, tokenizer
):
    chat(model, tokenizer, say=["the cat", "sat"], max_tokens=8)
    (bundle,) = bundles
    assert bundle["text/html"].count('<td align="left" style="text-align:left;">model</td>') == 2
    assert "sat" in bundle["text/plain"] and "application/vnd.jupyter.widget-view+json" in bundle


def test_a_chat_without_questions_says_what_it_is(bundles, model, tokenizer):
    chat(model, tokenizer)
    assert "run this cell" in bundles[0]["text/plain"]
