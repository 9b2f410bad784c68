"""Things to click in a notebook: the token autopsy and a chat box. Each has a static twin for the web."""

from __future__ import annotations

from nanolab.widgets.autopsy import token_autopsy
from nanolab.widgets.chatbox import chat

__all__ = ["chat", "token_autopsy"]
