"""The token autopsy: what a model expected at every token of a text, to click through."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import ipywidgets

from nanolab.autopsy import Autopsy, Token, examine, read
from nanolab.chat import Conversation
from nanolab.errors import ConfigError
from nanolab.model import GPT
from nanolab.tokenizer import Tokenizer
from nanolab.widgets.common import beside, bits, colours, in_html_table, one_line, percent, visible
from nanolab.widgets.words import bars, details, legend, static_autopsy

MOST_CANDIDATES = 20
WHOLE = {"description_width": "initial"}
"""Style of a slider whose name is not to be cut"""


def token_autopsy(
    models: GPT | Mapping[str, GPT],
    tokenizer: Tokenizer,
    text: str | Sequence[int] | Conversation,
    *,
    k: int = 8,
    position: int | None = None,
) -> None:
    """Show what a model, or each of several named ones, expected at every token of a text.

    text: a text (read as a document, `<|bos|>` first), token ids, or a conversation, whose special tokens
    and mask are then shown too. k: how many candidates at first. position: the token shown at first; by
    default what would come next. Raises ConfigError for a text longer than the models' context.
    """
    named = dict(models) if isinstance(models, Mapping) else {"model": models}
    if not named:
        raise ConfigError('there is no model to look into.\nGive one, or a dict such as {"base": model}.')
    ids, mask = read(tokenizer, text)
    autopsies = {name: examine(model, tokenizer, ids, mask) for name, model in named.items()}
    view = AutopsyView(autopsies, k, position)
    beside(view.box, *static_autopsy(view.autopsies))


class AutopsyView:
    """The live autopsy: chips, the details of one token, candidates to put in its place.

    It draws what `Autopsy` computes. Moving about and the sliders use the logits that are there; only a
    substitution lets the models read again.
    """

    def __init__(self, autopsies: Mapping[str, Autopsy], k: int = 8, position: int | None = None) -> None:
        self.original = self.autopsies = dict(autopsies)
        self.ids = next(iter(self.autopsies.values())).ids
        self.selected = len(self.ids) if position is None else position
        self.note = ""
        self._filling = False
        self._styles: dict[tuple, ipywidgets.ButtonStyle] = {}
        chip = {"width": "auto", "height": "34px", "margin": "1px", "padding": "0 4px"}
        self._plain = ipywidgets.Layout(**chip, border="3px solid #e0e0e0")
        self._marked = ipywidgets.Layout(**chip, border="3px solid #d55e00")

        names = list(self.autopsies)
        self.which = ipywidgets.ToggleButtons(options=names, value=names[0], style={"button_width": "auto"})
        self.which.layout.display = None if len(names) > 1 else "none"
        self.legend = ipywidgets.HTML(legend(self.autopsies[names[0]].mask is not None))
        self.chips = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap", margin="4px 0"))
        self.left = arrow("◀", "one token to the left")
        self.right = arrow("▶", "one token to the right")
        self.place = ipywidgets.IntSlider(
            min=0, max=len(self.ids), value=self.selected, description="token", layout={"width": "400px"}
        )
        self.undo = ipywidgets.Button(description="original text", disabled=True, layout={"width": "auto"})
        self.temperature = ipywidgets.FloatSlider(
            min=0.1,
            max=2.0,
            step=0.1,
            value=1.0,
            description="temperature",
            readout_format=".1f",
            style=WHOLE,
        )
        self.k = ipywidgets.IntSlider(
            min=1, max=MOST_CANDIDATES, value=min(k, MOST_CANDIDATES), description="k"
        )
        self.details, self.bars, self.message = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self.candidates = [
            ipywidgets.Button(layout={"width": "150px", "height": "26px", "margin": "0"})
            for _ in range(MOST_CANDIDATES + 1)
        ]
        self.list = ipywidgets.VBox(layout={"padding": "26px 0 0 0", "min_width": "154px"})
        self.box = ipywidgets.VBox(
            [
                self.which, self.legend, self.chips,
                ipywidgets.HBox([self.left, self.right, self.place, self.undo]),
                self.message,
                self.details,
                ipywidgets.HBox([self.temperature, self.k], layout={"flex_flow": "row wrap"}),
                ipywidgets.HBox([self.list, self.bars]),
            ]
        )  # fmt: skip
        for part, name in ((self.box, "autopsy"), (self.chips, "chips"), (self.list, "candidates")):
            part.add_class(f"nanolab-{name}")
        self.left.on_click(lambda _: self.select(self.selected - 1))
        self.right.on_click(lambda _: self.select(self.selected + 1))
        self.undo.on_click(lambda _: self.restore())
        self.place.observe(self._on_place, "value")
        self.which.observe(lambda _: self._draw_chips(), "value")
        for slider in (self.temperature, self.k):
            slider.observe(lambda _: self._draw_details(), "value")
        for number, button in enumerate(self.candidates):
            button.on_click(lambda _, number=number: self.choose(number))
        self._draw_chips()

    @property
    def autopsy(self) -> Autopsy:
        """The autopsy by the checkpoint that is switched on."""
        return self.autopsies[self.which.value]

    @property
    def token(self) -> Token:
        """The selected place, as the sliders say."""
        return self.autopsy.at(self.selected, self.temperature.value, self.k.value)

    def select(self, position: int) -> None:
        """Go to a token; position T is the place behind the text."""
        position = min(max(position, 0), len(self.ids))
        self._mark(self.selected, self._plain)
        self.selected = position
        self._mark(position, self._marked)
        self._draw_details()

    def _on_place(self, change: dict[str, int]) -> None:
        if not self._filling:
            self.select(change["new"])

    def choose(self, number: int) -> None:
        """Put candidate `number` of the list into the text."""
        old, new = self.token, self.token.top[number]
        with one_line(self.message) as worked:
            autopsies = {name: one.substitute(self.selected, new.id) for name, one in self.autopsies.items()}
        if not worked():
            return
        was = "" if old.id is None else f" It was {visible(old.text)}."
        self.note = (
            f"Token {self.selected} is now {visible(new.text)}.{was} "
            "The models have read the text again: look at the surprise of what comes after."
        )
        self._replace(autopsies, self.selected + (old.id is None))

    def restore(self) -> None:
        """Back to the text as it was given."""
        self.note = ""
        self._replace(self.original, min(self.selected, len(next(iter(self.original.values())).ids)))

    def _replace(self, autopsies: dict[str, Autopsy], selected: int) -> None:
        self.autopsies, self.selected = autopsies, selected
        self.ids = next(iter(autopsies.values())).ids
        self.undo.disabled = autopsies is self.original
        self.message.value = html.escape(self.note)
        self._draw_chips()

    def _mark(self, position: int, layout: ipywidgets.Layout) -> None:
        if position < len(self.chips.children):
            self.chips.children[position].layout = layout

    def _style(self, token: Token, changed: bool) -> ipywidgets.ButtonStyle:
        """One style for all chips that look alike: a chip is then a single message to the browser."""
        back, ink = colours(token)
        key = (back, token.special, bool(token.learned), changed)
        if key not in self._styles:
            self._styles[key] = ipywidgets.ButtonStyle(
                button_color=back, text_color=ink, font_family="monospace",
                font_style="italic" if token.special else "normal",
                text_decoration="underline" if token.learned else "none",
                font_weight="bold" if changed else "normal",
            )  # fmt: skip
        return self._styles[key]

    def _draw_chips(self) -> None:
        """All chips anew in colour; a new button only where the text has grown."""
        buttons = list(self.chips.children)[: len(self.ids) + 1]
        for position in range(len(buttons), len(self.ids) + 1):
            button = ipywidgets.Button(layout=self._plain)
            button.on_click(lambda _, position=position: self.select(position))
            buttons.append(button)
        before = next(iter(self.original.values())).ids
        for position, button in enumerate(buttons):
            token = self.autopsy.at(position, k=0)
            behind = token.id is None
            changed = not behind and before[position : position + 1] != (token.id,)
            button.description = "next?" if behind else visible(token.text)
            button.tooltip = f"token {position}: {bits(token.bits)} bits, rank {token.rank}"
            if behind:
                button.tooltip = "what would come next"
            button.style = self._style(token, changed)
            button.layout = self._marked if position == self.selected else self._plain
        self.chips.children = buttons
        self._draw_details()

    def _draw_details(self) -> None:
        self._filling = True
        self.place.max, self.place.value = len(self.ids), self.selected
        self._filling = False
        token = self.token
        self.left.disabled, self.right.disabled = self.selected == 0, self.selected == len(self.ids)
        self.details.value = details(token, self.autopsy, self.temperature.value) + self._comparison()
        for button, candidate in zip(self.candidates, token.top, strict=False):
            button.description = visible(candidate.text)
            button.tooltip = "the token of the text" if candidate.true else "put this token here"
            button.disabled = candidate.true
        self.list.children = self.candidates[: len(token.top)]
        self.bars.value = bars(token.top)

    def _comparison(self) -> str:
        """The selected token by every checkpoint, side by side, at the temperature of the slider."""
        if len(self.autopsies) < 2:
            return ""
        head = [
            "checkpoint",
            "chance",
            "bits",
            "rank",
            "entropy",
            "expected most",
            "mean bits of the text (temperature 1)",
        ]
        rows = []
        for name, autopsy in self.autopsies.items():
            token = autopsy.at(self.selected, self.temperature.value, k=1)
            numbers = [percent(token.probability), bits(token.bits), str(token.rank or "–")]
            best = "".join(f"{visible(one.text)} {percent(one.probability)}" for one in token.top[:1])
            rows.append([name, *numbers, bits(token.entropy), best, bits(autopsy.mean_bits)])
        return in_html_table(rows, head, style="padding:0 14px 0 0;line-height:22px")


def arrow(sign: str, tooltip: str) -> ipywidgets.Button:
    """A narrow button."""
    return ipywidgets.Button(description=sign, tooltip=tooltip, layout={"width": "40px"})
