"""The chat box: a model to talk to, with its tool calls to be seen."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import Any

import ipywidgets

from nanolab.chat import Message, calls_to_parts, render_for_completion, truncate_history
from nanolab.engine import Engine
from nanolab.model import GPT
from nanolab.tokenizer import Tokenizer
from nanolab.widgets.common import beside, in_html_table, in_text_table, one_line

REDRAW_SECONDS = 0.05
CALL = "background:#e69f00;color:#000000;padding:1px 4px;margin:0 4px"
"""How a tool call looks"""


def chat(
    model: GPT,
    tokenizer: Tokenizer,
    say: Sequence[str] = (),
    *,
    temperature: float = 0.0,
    top_k: int = 50,
    max_tokens: int = 128,
    seed: int = 0,
) -> None:
    """Show a chat box. `say`: questions asked at once, one after the other, and shown with their answers.

    temperature and top_k are where the sliders stand at first: at temperature 0 the likeliest token is
    taken each time. max_tokens: the longest answer. seed: of sampling; each answer draws anew from it.
    """
    view = ChatView(model, tokenizer, temperature=temperature, top_k=top_k, max_tokens=max_tokens, seed=seed)
    for question in say:
        view.ask(question)
    beside(view.box, *static_chat(view.said))


Line = tuple[str, list[dict[str, str]]]
"""Who speaks ("you", "model" or "note"), and the parts of what is said"""


def words(parts: list[dict[str, str]]) -> str:
    """Parts of a message as one text, tool calls as `[calculator: 3+4 → 7]`."""
    said = ""
    for part in parts:
        if part["type"] == "python":
            said += f"[calculator: {part['text']}"
        elif part["type"] == "python_output":
            said += f" → {part['text']}]"
        else:
            said += part["text"]
    return said


def static_chat(said: Sequence[Line]) -> tuple[str, str]:
    """The transcript as `(text, html)`, for where no kernel runs."""
    rows = [[who, words(parts)] for who, parts in said]
    if not rows:
        line = "A chat box: run this cell to talk to the model."
        return line, f"<p>{line}</p>"
    return in_text_table(rows, ["who", "said"]), in_html_table(rows, ["who", "said"])


def transcript(said: Sequence[Line]) -> str:
    """The transcript for the live box."""
    rows = []
    for who, parts in said:
        text = ""
        for part in parts:
            piece = html.escape(part["text"])
            if part["type"] == "python":
                text += f'<code style="{CALL}">calculator: {piece}'
            elif part["type"] == "python_output":
                text += f" → {piece}</code>"
            else:
                text += piece
        style = "white-space:pre-wrap;overflow-wrap:anywhere;margin:4px 0"
        body = f"<i>{text}</i>" if who == "note" else f"<b>{who}:</b> {text}"
        rows.append(f'<div style="{style}">{body}</div>')
    return "".join(rows)


class ChatView:
    """The live chat. `messages` is the conversation so far, `said` what the box shows of it."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, *, temperature: float, top_k: int, max_tokens: int, seed: int
    ) -> None:
        self.engine, self.seed = Engine(model, tokenizer), seed
        self.context = model.config.sequence_len
        self.max_tokens = min(max_tokens, self.context // 2)
        self.messages: list[Message] = []
        self.said: list[Line] = []
        self.page = ipywidgets.HTML(layout={"max_height": "420px", "overflow": "auto"})
        self.text = ipywidgets.Text(
            placeholder="Write to the model, then press Enter or Send", layout={"width": "420px"}
        )
        self.send = ipywidgets.Button(description="Send", button_style="primary", layout={"width": "80px"})
        self.clear = ipywidgets.Button(description="New chat", layout={"width": "90px"})
        self.temperature = ipywidgets.FloatSlider(
            value=temperature, min=0.0, max=2.0, step=0.1, description="temperature", readout_format=".1f",
            style={"description_width": "initial"},
        )  # fmt: skip
        self.top_k = ipywidgets.IntSlider(value=top_k, min=1, max=max(100, top_k), description="top-k")
        self.message = ipywidgets.HTML()
        self.box = ipywidgets.VBox(
            [
                self.page,
                ipywidgets.HBox([self.text, self.send, self.clear], layout={"flex_flow": "row wrap"}),
                ipywidgets.HBox([self.temperature, self.top_k], layout={"flex_flow": "row wrap"}),
                self.message,
            ],
            layout={"border": "1px solid #999999", "padding": "8px"},
        )
        self.box.add_class("nanolab-chat")
        self.send.on_click(lambda _: self.submit())
        self.text.on_msg(self._on_text_message)
        self.clear.on_click(lambda _: self.restart())

    def _on_text_message(self, _: ipywidgets.Widget, content: dict[str, Any], buffers: list[Any]) -> None:
        # Text.on_submit does the same and is deprecated; its successor also fires when the box loses focus.
        if content.get("event") == "submit":
            self.submit()

    def submit(self) -> None:
        """Ask what stands in the text box."""
        question, self.text.value = self.text.value.strip(), ""
        if question:
            self.ask(question)

    def restart(self) -> None:
        """Forget the conversation."""
        self.messages, self.said = [], []
        self.page.value = self.message.value = ""

    def ask(self, question: str) -> None:
        """Ask a question and stream the answer; an error of this library becomes one line."""
        self.message.value = ""
        self.said.append(("you", [{"type": "text", "text": question}]))
        self.page.value = transcript(self.said)
        self.send.disabled = True
        try:
            with one_line(self.message) as worked:
                self._answer(question)
            if not worked():
                self.said.append(("note", [{"type": "text", "text": "The model gave no answer."}]))
                self.page.value = transcript(self.said)
        finally:
            self.send.disabled = False

    def _answer(self, question: str) -> None:
        """Stream one answer. The history is cut so that the answer has room in the model's context."""
        asked: list[Message] = [*self.messages, {"role": "user", "content": question}]
        tokenizer, room = self.engine.tokenizer, self.context - self.max_tokens
        kept: dict[str, Any] = truncate_history(tokenizer, {"messages": asked}, room)
        prompt = render_for_completion(tokenizer, kept)
        answer, drawn, stopped, start = "", 0.0, False, time.perf_counter()
        try:
            for piece in self.engine.stream_text(
                prompt, max_tokens=self.max_tokens, temperature=self.temperature.value,
                top_k=self.top_k.value, seed=self.seed + len(self.said),
            ):  # fmt: skip
                answer += piece
                if time.perf_counter() - drawn > REDRAW_SECONDS:
                    self.page.value = transcript([*self.said, ("model", calls_to_parts(answer + " ▌"))])
                    drawn = time.perf_counter()
        except KeyboardInterrupt:
            stopped = True
        seconds = time.perf_counter() - start
        parts = calls_to_parts(answer)
        self.said.append(("model", parts or [{"type": "text", "text": "(it ended without a word)"}]))
        if stopped:
            self.said.append(("note", [{"type": "text", "text": "Stopped by you."}]))
        self.page.value = transcript(self.said)
        self.messages = [*asked, {"role": "assistant", "content": parts}]
        forgot = ""
        if kept["messages"][-1]["content"] != question:
            forgot = "; of your message only the end fits"
        elif len(kept["messages"]) < len(asked):
            forgot = "; the oldest turns no longer fit and were left out"
        self.message.value = self._status(prompt, forgot, seconds)

    def _status(self, prompt: list[int], forgot: str, seconds: float) -> str:
        read = f"The model read {len(prompt)} tokens of at most {self.context}{forgot}"
        return f"{read}, and took {seconds:.1f} s."
