"""Byte-pair encoding in one page: slow, plain, and the oracle for the fast one in `tokenizer.py`.

Training begins with the 256 bytes as tokens, and again and again gives the most frequent pair of neighbours
a token of its own. With the pattern `\\w+|\\W+`, so that nothing merges across the edge of a word:

    "hug hugs mug"        h u g | ' ' | h u g s | ' ' | m u g
    (u, g) is there 3 times  ->  256 = "ug"      h ug | ' ' | h ug s | ' ' | m ug
    (h, ug) is there twice   ->  257 = "hug"     hug  | ' ' | hug s  | ' ' | m ug

Encoding replays the merges in the order in which they were learned: "hugs mugs" -> hug s ' ' m ug s.

Sources: Gage (1994); Sennrich, Haddow and Birch (2016, arXiv:1508.07909); Karpathy's minbpe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import regex

Pair = tuple[int, int]


def count_pairs(words: dict[tuple[int, ...], int]) -> Counter[Pair]:
    """How often each two neighbours occur: `{(1, 2, 3, 1, 2): 5}` -> `{(1, 2): 10, (2, 3): 5, (3, 1): 5}`."""
    counts: Counter[Pair] = Counter()
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] += times
    return counts


def merge(word: tuple[int, ...], pair: Pair, new: int) -> tuple[int, ...]:
    """Replace `pair` by `new`, from the left: `merge((1, 1, 1, 2), (1, 1), 9)` -> `(9, 1, 2)`."""
    merged: list[int] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return tuple(merged)


def train(texts: Iterable[str], vocab_size: int, pattern: str) -> dict[Pair, int]:
    """Learn merges until there are `vocab_size` tokens (special ones not counted), or nothing to merge.

    Returns `{(256 and so on, ...): new token}` in the order learned. Of equally frequent pairs the one with
    the smallest ids goes first, as in rustbpe.
    """
    pieces = Counter(piece.encode() for text in texts for piece in regex.findall(pattern, text))
    words = {tuple(piece): times for piece, times in pieces.items()}
    merges: dict[Pair, int] = {}
    for new in range(256, vocab_size):
        counts = count_pairs(words)
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges[best] = new
        words = {merge(word, best, new): times for word, times in words.items()}
    return merges


def ranks_of(merges: dict[Pair, int]) -> dict[bytes, int]:
    """The bytes of each token with its id, which is its rank: the 256 bytes, then one for each merge."""
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return {token: rank for rank, token in enumerate(tokens)}


def encode(text: str, ranks: dict[bytes, int], pattern: str) -> list[int]:
    """The ids of `text`: in each piece, while any two neighbours form a token, merge the lowest in rank."""
    ids: list[int] = []
    for piece in regex.findall(pattern, text):
        parts = [bytes([byte]) for byte in piece.encode()]
        while mergeable := [i for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
            i = min(mergeable, key=lambda i: ranks[parts[i] + parts[i + 1]])
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids
