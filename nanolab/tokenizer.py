"""Text to token ids and back: byte-pair encoding, trained by rustbpe, applied by tiktoken, saved as JSON.

`bpe.py` is the same algorithm in a page of Python, for reading.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import overload

import regex
import rustbpe
import tiktoken

from nanolab.errors import ConfigError, DataError
from nanolab.paths import atomic_write

SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
"""nanochat's nine, in the order of their ids. Only `encode_special` makes them: no text ever does."""

# The regex engine of tiktoken and rustbpe gives up on a million blanks in a row ("StackOverflow").
_LONGEST_BLANK = 100_000

_PROBE = "It's 12,345 o'clock;  \tthe café's 😀 sign:\r\n\n  日本語 <|bos|>  "


def split_pattern(digits: int = 1) -> str:
    r"""nanochat's split pattern: GPT-4's with at most `digits` digits a piece. Merges stay inside a piece.

    `"It's 123 cats"` -> `It`, `'s`, ` `, `1`, `2`, `3`, ` cats`. Raises ConfigError unless
    `digits` is 1 to 99.
    """
    if not 1 <= digits <= 99:
        raise ConfigError(
            f"digits={digits}: a token can have 1 to 99 digits.\nUse 1 for small models, 2 or 3 otherwise."
        )
    pattern = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,DIGITS}"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    )
    return pattern.replace("DIGITS", str(digits))


class Tokenizer:
    """A vocabulary: byte strings with their ids 0 to n-1, then the nine special tokens.

    `mergeable_ranks` maps the bytes of a token to its id, which is also its rank: of all neighbours that
    could merge, the pair with the lowest rank does so first. `pattern` cuts the text into pieces before.
    Raises DataError for ranks or a pattern that could not encode every text.
    """

    def __init__(self, mergeable_ranks: dict[bytes, int], pattern: str) -> None:
        _check_ranks(mergeable_ranks)
        _check_pattern(pattern)
        self.mergeable_ranks = mergeable_ranks
        self.pattern = pattern
        self._special = {name: len(mergeable_ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
        self._bytes = sorted(mergeable_ranks, key=mergeable_ranks.__getitem__)
        try:
            self._encoding = tiktoken.Encoding(
                "nanolab", pat_str=pattern, mergeable_ranks=mergeable_ranks, special_tokens=self._special
            )
        except ValueError as error:
            raise DataError(f"tiktoken refuses the split pattern: {error}.\nUse split_pattern().") from error

    def __repr__(self) -> str:
        return f"<Tokenizer of {self.get_vocab_size():,} tokens>"

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, digits: int = 1) -> Tokenizer:
        """Learn `vocab_size` tokens, the 256 bytes and the nine special tokens among them, from `texts`.

        Raises ConfigError for a `vocab_size` below 265, DataError for texts with too little to merge.
        """
        smallest = 256 + len(SPECIAL_TOKENS)
        if vocab_size < smallest:
            raise ConfigError(
                f"vocab_size={vocab_size} is too small.\n"
                f"Use at least {smallest}: 256 bytes and {len(SPECIAL_TOKENS)} special tokens."
            )
        pattern = split_pattern(digits)
        trainer = rustbpe.Tokenizer()
        pieces = (piece for text in texts for piece in _encodable(text))
        trainer.train_from_iterator(pieces, vocab_size - len(SPECIAL_TOKENS), pattern=pattern)
        ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
        made, asked = len(ranks) - 256, vocab_size - smallest
        if made < asked:
            raise DataError(
                f"The texts are too short for vocab_size={vocab_size}: only {made} of {asked} merges were "
                "possible before nothing was left to merge.\n"
                f"Train on more text, or use vocab_size={made + smallest} or less."
            )
        return cls(ranks, pattern)

    @overload
    def encode(self, text: str) -> list[int]: ...
    @overload
    def encode(self, text: list[str]) -> list[list[int]]: ...
    def encode(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """The ids of a text, or of each text of a list. Never a special id, whatever the text says.

        Half a surrogate pair, which is no character, is encoded as U+FFFD. A run of blanks is cut after every
        100,000, so that a million of them neither fail nor hang; all other text is encoded in one go.
        """
        if isinstance(text, list):
            return [self.encode(one) for one in text]
        return [id for piece in _encodable(text) for id in self._encoding.encode_ordinary(piece)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD, a special token its name."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, joined. Raises DataError for an id that this vocabulary lacks."""
        return b"".join(self._bytes_of(id) for id in ids)

    def _bytes_of(self, id: int) -> bytes:
        id = operator.index(id)
        if not 0 <= id < self.get_vocab_size():
            raise DataError(
                f"There is no token {id}: the ids are 0 to {self.get_vocab_size() - 1}.\n"
                "Were these ids made by another tokenizer?"
            )
        ordinary = len(self._bytes)
        return self._bytes[id] if id < ordinary else SPECIAL_TOKENS[id - ordinary].encode()

    def encode_special(self, name: str) -> int:
        """The id of a special token. Raises DataError for any other name."""
        if name not in self._special:
            raise DataError(f"{name!r} is no special token.\nThey are {' '.join(SPECIAL_TOKENS)}.")
        return self._special[name]

    def get_bos_token_id(self) -> int:
        """The id of `<|bos|>`, which begins every document and every conversation."""
        return self._special["<|bos|>"]

    def get_vocab_size(self) -> int:
        """How many ids there are, the special ones included."""
        return len(self._bytes) + len(SPECIAL_TOKENS)

    def get_special_tokens(self) -> set[str]:
        """The names of the special tokens."""
        return set(SPECIAL_TOKENS)

    def token_bytes(self) -> list[int]:
        """How many bytes of text each id stands for; 0 for special tokens, which stand for none.

        Counted before decoding: half an emoji is 2 bytes here, but 3 once shown as U+FFFD.
        """
        return [len(token) for token in self._bytes] + [0] * len(SPECIAL_TOKENS)

    def token_text(self, id: int) -> str:
        r"""A token for display: ` cat`, `\n`, `<|bos|>`; part of a character as hex, `<e2 80>`.

        What cannot be seen is escaped, but for the space.
        """
        token = self._bytes_of(id)
        try:
            text = token.decode("utf-8")
        except UnicodeDecodeError:
            return f"<{token.hex(' ')}>"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

    def save(self, path: Path | str) -> None:
        """Write the vocabulary as JSON: the pattern, the special tokens, and each token's bytes in hex."""
        atomic_write(Path(path), self._to_json())

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read what `save` wrote. Raises DataError, naming the file, for anything else."""
        path = Path(path)
        try:
            return cls._from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file.\nTrain a tokenizer first.") from None
        except (OSError, ValueError, RecursionError, DataError) as error:
            what = str(error).split("\n")[0] or type(error).__name__
            raise DataError(
                f"{path} is not a usable tokenizer: {what}\nTrain it again, or fetch the file again."
            ) from error

    def hash(self) -> str:
        """SHA-256 of the saved form, in hex: equal exactly where the vocabularies are equal."""
        return hashlib.sha256(self._to_json().encode()).hexdigest()

    def _to_json(self) -> str:
        content = {
            "format": "nanolab tokenizer 1",
            "pattern": self.pattern,
            "special_tokens": SPECIAL_TOKENS,
            "tokens": [token.hex() for token in self._bytes],
        }
        return json.dumps(content, indent=0) + "\n"

    @classmethod
    def _from_json(cls, text: str) -> Tokenizer:
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != "nanolab tokenizer 1":
            raise DataError('it has no "format": "nanolab tokenizer 1".')
        if content.get("special_tokens") != list(SPECIAL_TOKENS):
            raise DataError(f"its special tokens are not {' '.join(SPECIAL_TOKENS)}.")
        pattern, tokens = content.get("pattern"), content.get("tokens")
        if not isinstance(pattern, str):
            raise DataError('its "pattern" is not a text.')
        if not isinstance(tokens, list) or not all(_is_hex(token) for token in tokens):
            raise DataError('its "tokens" are not a list of bytes in hex.')
        ranks = {bytes.fromhex(token): rank for rank, token in enumerate(tokens)}
        if len(ranks) < len(tokens):
            raise DataError("a token is in it twice.")
        return cls(ranks, pattern)


def _encodable(text: str) -> Iterator[str]:
    """`text` in pieces that the Rust libraries accept: valid Unicode, no endless run of blanks."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    cuts = [0]
    if len(text) > _LONGEST_BLANK:
        for blank in re.finditer(r"\s+", text):
            cuts += range(blank.start() + _LONGEST_BLANK, blank.end(), _LONGEST_BLANK)
    for start, end in pairwise([*cuts, len(text)]):
        yield text[start:end]


def _is_hex(token: object) -> bool:
    return isinstance(token, str) and re.fullmatch(r"([0-9a-f]{2})+", token) is not None


def _check_ranks(ranks: dict[bytes, int]) -> None:
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise DataError("The ranks are not 0, 1, 2, ... without a gap.\nUse each rank once, from 0.")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise DataError(
            f"{len(missing)} of the 256 single bytes are missing, among them {bytes(missing[:1])!r}.\n"
            "Without them some text could not be encoded: add them."
        )


def _check_pattern(pattern: str) -> None:
    """A pattern must cut text without losing any, and never into nothing (tiktoken would panic)."""
    try:
        pieces = [match[0] for match in regex.finditer(pattern, _PROBE, timeout=1.0)]
    except (regex.error, TimeoutError) as error:
        raise DataError(f"The split pattern cannot be used: {error}.\nUse split_pattern().") from error
    if "".join(pieces) != _PROBE or not all(pieces):
        raise DataError("The split pattern loses part of a text.\nUse split_pattern().")
