"""What notebook 01 shows: bytes under characters, a vocabulary that grows, one thought in six languages."""

from __future__ import annotations

import hashlib
import html
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import regex
import tiktoken

import nanolab
from nanolab import bpe
from nanolab.errors import DataError
from nanolab.tokenizer import Tokenizer, split_pattern
from nanolab.viz.tokens import visible

GPT2_RANKS = "https://openaipublic.blob.core.windows.net/encodings/r50k_base.tiktoken"

SAMPLES = {
    "English": "The cat sleeps on the warm roof because the sun is shining. Tomorrow it will rain.",
    "French": "Le chat dort sur le toit chaud parce que le soleil brille. Demain il va pleuvoir.",
    "German": "Die Katze schläft auf dem warmen Dach, weil die Sonne scheint. Morgen wird es regnen.",
    "Turkish": "Güneş parladığı için kedi sıcak çatıda uyuyor. Yarın yağmur yağacak.",
    "Russian": "Кошка спит на тёплой крыше, потому что светит солнце. Завтра будет дождь.",
    "Chinese": "因为阳光明媚，猫在温暖的屋顶上睡觉。明天会下雨。",
    "Python": "def area(width: float, height: float) -> float:\n    return max(0.0, width * height)\n",
}
"""One thought in six languages, and something of a computer's: what a tokenizer has to cope with."""


@dataclass(frozen=True)
class Cell:
    """Something that stands for `width` bytes of a text."""

    label: str
    width: int


@dataclass(frozen=True)
class Layers:
    """Readings of one text, one over the other: in each the cells cover the same bytes. Shows as a table."""

    rows: dict[str, list[Cell]]

    def counts(self) -> dict[str, int]:
        """How many symbols each reading needs."""
        return {name: len(cells) for name, cells in self.rows.items()}

    def __repr__(self) -> str:
        labels = {name: " | ".join(cell.label for cell in cells) for name, cells in self.rows.items()}
        return "\n".join(f"{len(self.rows[name])} {name}: {text}" for name, text in labels.items())

    def _repr_html_(self) -> str:
        edge = "border:1px solid #767676;text-align:center;padding:3px 5px;color:#111;background:"
        lines = []
        for number, (name, cells) in enumerate(self.rows.items()):
            shades = (("#ffffff", "#f0f0f0"), ("#d6e9f8", "#eef6fc"), ("#fdeccb", "#fff7e8"))[number % 3]
            fields = "".join(
                f'<td colspan="{cell.width}" style="{edge}{shades[place % 2]}"><code style="background:none;'
                f'color:#111">{html.escape(cell.label)}</code></td>'
                for place, cell in enumerate(cells)
            )
            style = "text-align:left;background:#fff;color:#111"
            lines.append(f'<tr><th style="{style}">{len(cells)} {html.escape(name)}</th>{fields}</tr>')
        return f'<table style="background:#fff">{"".join(lines)}</table>'


def layers(text: str, tokenizer: Tokenizer | None = None) -> Layers:
    """The characters of a text (code points) over its bytes in UTF-8, and over its tokens, given a tokenizer.

    A token that is only part of a character is shown as its bytes.
    """
    rows = {
        "characters": [Cell(visible(char), len(char.encode())) for char in text],
        "bytes": [Cell(f"{byte:02x}", 1) for byte in text.encode()],
    }
    if tokenizer is not None:
        pieces = [tokenizer.decode_bytes([id]) for id in tokenizer.encode(text)]
        rows["tokens"] = [Cell(visible(piece), len(piece)) for piece in pieces]
    return Layers(rows)


@dataclass(frozen=True)
class Merge:
    """One step of training a tokenizer."""

    vocabulary: int
    """tokens there are now, the 256 bytes included"""
    token: bytes
    """the newest one"""
    times: int
    """how often its two halves stood side by side"""
    bytes_per_token: float
    """of the training text, with this vocabulary"""


def grow(text: str, merges: int, pattern: str | None = None) -> Iterator[Merge]:
    """Train byte-pair encoding on `text`, `merges` times, and yield after each: `bpe.train`, step by step.

    `pattern` cuts the text before, by default the library's. Ends early where nothing is left to merge.
    """
    pieces = Counter(piece.encode() for piece in regex.findall(pattern or split_pattern(), text))
    words = {tuple(piece): times for piece, times in pieces.items()}
    size = sum(len(word) * times for word, times in words.items())
    vocabulary = [bytes([byte]) for byte in range(256)]
    for _ in range(merges):
        counts = bpe.count_pairs(words)
        if not counts:
            return
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        words = {bpe.merge(word, best, len(vocabulary)): times for word, times in words.items()}
        vocabulary.append(vocabulary[best[0]] + vocabulary[best[1]])
        tokens = sum(len(word) * times for word, times in words.items())
        yield Merge(len(vocabulary), vocabulary[-1], counts[best], size / tokens)


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """How many bytes of these texts a token stands for, on average. Raises DataError for no text."""
    size = tokens = 0
    for text in texts:
        size, tokens = size + len(text.encode()), tokens + len(tokenizer.encode(text))
    if not tokens:
        raise DataError("there is no text to count.\nGive at least one that is not empty.")
    return size / tokens


def longest(tokenizer: Tokenizer, count: int = 30) -> list[str]:
    """The longest tokens of a vocabulary, longest first; of equally long ones the earlier learned first."""
    sizes = tokenizer.token_bytes()
    ordinary = sorted((id for id, size in enumerate(sizes) if size), key=lambda id: -sizes[id])
    return [tokenizer.token_text(id) for id in ordinary[:count]]


def number_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each token of digits occurs in the texts; those of the vocabulary that never do have 0."""
    names = {id: tokenizer.token_text(id) for id, size in enumerate(tokenizer.token_bytes()) if size}
    digits = {id: name for id, name in names.items() if re.fullmatch("[0-9]+", name)}
    seen: Counter[str] = Counter(dict.fromkeys(digits.values(), 0))
    for text in texts:
        seen.update(digits[id] for id in tokenizer.encode(text) if id in digits)
    return seen


def page_of_sums(count: int, seed: int = 0) -> str:
    """`count` lines like `417 + 58 = 475`: numbers below a thousand, each as likely as any other."""
    rng = random.Random(f"sums/{seed}")
    pairs = ((rng.randrange(1000), rng.randrange(1000)) for _ in range(count))
    return "\n".join(f"{a} + {b} = {a + b}" for a, b in pairs)


def library_code() -> list[str]:
    """The source of nanolab itself, a text a file: some Python that is on every machine of the course."""
    folder = Path(nanolab.__file__).resolve().parent
    return [file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.py"))]


def gpt2(download: bool = False) -> Tokenizer | None:
    """GPT-2's vocabulary under our nine special tokens, from tiktoken's cache; None where it is not there.

    With `download` it is fetched from OpenAI once, about 1 MB. Raises DataError where that fails.
    """
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    cache = Path(folder or Path(tempfile.gettempdir()) / "data-gym-cache")
    if not download and not (cache / hashlib.sha1(GPT2_RANKS.encode()).hexdigest()).exists():
        return None
    try:
        encoding = tiktoken.get_encoding("r50k_base")
    except Exception as error:  # whatever the network does
        raise DataError(f"GPT-2's vocabulary could not be fetched ({error}).\nGo on without it.") from error
    ranks = {encoding.decode_single_token_bytes(rank): rank for rank in range(50_256)}
    return Tokenizer(ranks, encoding._pat_str)
