"""What the token autopsy says: its legend, the details of a token, and its static twin."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from nanolab.autopsy import Autopsy, Candidate, Token
from nanolab.widgets.common import SURPRISE, bits, blocks, in_html_table, in_text_table, percent, visible

BAR, TRUE_BAR = "#0072B2", "#D55E00"
STATIC_ROWS = 120


def static_autopsy(autopsies: Mapping[str, Autopsy]) -> tuple[str, str]:
    """The autopsy without a kernel, as `(text, html)`: a row a token, and what would come next."""
    first = next(iter(autopsies.values()))
    alone = len(autopsies) == 1
    head = ["#", "token"] + (["learned"] if first.mask is not None else [])
    for name in autopsies:
        title = "" if alone else f"{name}: "
        head += [f"{title}surprise in bits", *(["chance", "rank", "expected instead"] if alone else ["rank"])]
    rows = []
    for position in range(min(len(first.ids), STATIC_ROWS)):
        token = first.at(position, k=0)
        row = [str(position), visible(token.text)]
        if first.mask is not None:
            row.append("yes" if token.learned else "")
        for autopsy in autopsies.values():
            token = autopsy.at(position, k=1)
            row += [f"{bits(token.bits)} {blocks(token.bits)}" if token.predicted else "nothing before it"]
            row += [percent(token.probability)] if alone else []
            row += [str(token.rank) if token.predicted else ""]
            row += [visible(token.top[0].text) if token.rank > 1 else ""] if alone else []
        rows.append(row)
    after = []
    for name, autopsy in autopsies.items():
        top = autopsy.at(len(autopsy.ids), k=5).top
        guesses = ", ".join(f"{visible(one.text)} {percent(one.probability)}" for one in top)
        mean = f"mean surprise {bits(autopsy.mean_bits)} bits a token"
        after.append(f"{name}: {mean}. Next would come: {guesses}.")
    if len(first.ids) > STATIC_ROWS:
        after.insert(0, f"{len(first.ids) - STATIC_ROWS} more tokens are not shown here.")
    markup = in_html_table(rows, head) + "".join(f"<p>{html.escape(line)}</p>" for line in after)
    return "\n".join([in_text_table(rows, head), *after]), markup


def legend(conversation: bool) -> str:
    """The colours in words and numbers: readable without them."""
    parts, low = [], 0.0
    for limit, back, ink in SURPRISE:
        label = f"{low:g}–{limit:g}" if limit < math.inf else f"over {low:g}"
        parts.append(f'<span style="background:{back};color:{ink};padding:1px 6px">{label}</span>')
        low = limit
    how = "· is a space, ↵ a new line, &lt;e2&gt; part of a character in hex, <i>italic</i> a special token"
    if conversation:
        how += ", <u>underlined</u> what training supervises (mask 1)"
    keys = "Click a token, or walk: with ◀ and ▶, or with the arrow keys once the slider is clicked"
    return f"Surprise in bits (temperature 1): {' '.join(parts)}<br>{how}.<br>{keys}."


def details(token: Token, autopsy: Autopsy, temperature: float) -> str:
    """One token in words and numbers."""
    name = html.escape(visible(token.text))
    if not token.predicted:
        return f"<b>Token 0, <code>{name}</code></b>: nothing stands before it, so nothing was predicted."
    read = f"the {token.position} tokens" if token.position > 1 else "the one token"
    if token.id is None:
        said = f"<b>Behind the end.</b> What the model would write next, having read {read} to the left."
        return f"{said}<br>Entropy {token.entropy:.2f} bits."
    said = (
        f"<b>Token {token.position}, <code>{name}</code>, id {token.id}.</b> "
        f"This prediction was made before this token was seen: the model had read only {read} to its left."
    )
    if token.learned is not None:
        said += f" Mask {int(token.learned)}: training {'supervises' if token.learned else 'passes over'} it."
    numbers = (
        f"Probability {percent(token.probability)}, surprise {token.bits:.2f} bits, rank {token.rank} of "
        f"{autopsy.logits.size(1):,}; entropy {token.entropy:.2f} bits (the surprise it expected)."
    )
    at = "" if temperature == 1 else f" At temperature {temperature:.1f}."
    return f"{said}<br>{numbers}{at}"


def bars(top: Sequence[Candidate]) -> str:
    """The candidates' numbers, one row of 26 px each, to stand beside their buttons."""
    if not top:
        return ""
    line = "height:26px;line-height:26px"
    rows = f'<div style="{line}"><b>click a token to put it into the text</b></div>'
    for one in top:
        colour = TRUE_BAR if one.true else BAR
        style = f"display:inline-block;height:14px;width:{200 * one.probability:.1f}px;background:{colour}"
        mark = " ◀ the token of the text" if one.true else ""
        words = f"{percent(one.probability)}, {bits(one.bits)} bits, rank {one.rank}, id {one.id}{mark}"
        rows += f'<div style="{line};white-space:nowrap"><span style="{style}"></span> {words}</div>'
    return rows
