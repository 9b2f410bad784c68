"""Where pretraining text comes from: TinyWorld, parquet shards, a folder of text files, installed Python.

`text_source(name_or_folder, split)` finds it. A `TextSource` is a list of documents read a group at a time:
`ShardSource` from parquet files, `ListSource` from memory. What is made or gathered here is written to
shards under `home()/data` once, and read back like any other.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import uuid
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from nanolab.errors import ConfigError, DataError
from nanolab.installed import UnseenProse, python_files, source_code
from nanolab.paths import home

SPLITS = ("train", "val")
ROWS_PER_GROUP = 64
LONGEST_DOCUMENT = 50_000  # characters; longer files are cut between paragraphs
VAL_EVERY = 20  # one document, or source file, in so many is for validation
DAMAGED = "The file is damaged or no parquet file: fetch it again, or delete it."


def text_source(kind: str | Path, split: str, *, megabytes: float = 12.0, shards: int = 2) -> TextSource:
    """The `split` ("train" or "val") of a text corpus.

    kind: "tinyworld", "docstrings" or "python" (the last two: what is installed on this machine, so never
    the same twice), written once as about `megabytes` of shards and then reused; or "hub", FineWeb-EDU's
    first `shards` files, downloaded once; or a folder of parquet shards with a column `text`, or of .txt and
    .md files; or one such file. Raises DataError for a folder that holds no usable text, DownloadError for
    a download that fails.
    """
    check_split(split)
    if str(kind) == "hub":
        from nanolab.worksheet import text_shards

        return ShardSource(text_shards(shards), split)
    if str(kind) in CORPORA:
        return ShardSource(CORPORA[str(kind)](megabytes), split)
    path = Path(kind).expanduser()
    if not path.exists():
        raise DataError(
            f"there is no text corpus or folder {str(kind)!r}.\n"
            f"Give a folder of .txt, .md or .parquet files, or one of: {', '.join([*CORPORA, 'hub'])}."
        )
    files = _visible_files(path)
    if parquet_files := [file for file in files if file.suffix.lower() == ".parquet"]:
        return ShardSource(parquet_files, split)
    texts = [file for file in files if file.suffix.lower() in (".txt", ".md")]
    return ListSource(split_documents(texts, path)[SPLITS.index(split)], str(path))


class TextSource(ABC):
    """Documents in a fixed order, in groups that are read one at a time."""

    name: str  # for messages: where the text comes from
    fingerprint: int  # changes when the documents do, so that a saved position is not used on other text

    @abstractmethod
    def num_groups(self) -> int: ...

    @abstractmethod
    def group(self, index: int) -> list[str]:
        """The documents of one group. Raises DataError when they cannot be read."""

    def documents(self) -> Iterator[str]:
        """Every document once."""
        for index in range(self.num_groups()):
            yield from self.group(index)


class ListSource(TextSource):
    """Documents that are in memory already."""

    def __init__(self, documents: Sequence[str], name: str = "the given documents") -> None:
        self.texts, self.name = list(documents), name
        self.fingerprint = 0
        for document in self.texts:
            self.fingerprint = zlib.crc32(document.encode("utf-8", "surrogatepass") + b"\0", self.fingerprint)

    def num_groups(self) -> int:
        return -(-len(self.texts) // ROWS_PER_GROUP)

    def group(self, index: int) -> list[str]:
        return self.texts[index * ROWS_PER_GROUP : (index + 1) * ROWS_PER_GROUP]


class Piece(NamedTuple):
    """Rows `start` to `stop` (exclusive) of one row group of a parquet file."""

    path: Path
    row_group: int
    start: int
    stop: int


class ShardSource(TextSource):
    """One split of parquet shards with a column `text`, as FineWeb-EDU has them.

    The last shard is the validation split. Of a single shard it is the last row group; of a single row
    group the last 5% of its rows, at least one. Raises DataError for files that cannot be used.
    """

    def __init__(self, paths: Sequence[Path], split: str) -> None:
        check_split(split)
        shards = [pieces for path in paths if (pieces := _pieces(path))]
        self.name = str(paths[0].parent) if paths else "no files"
        if sum(piece.stop for pieces in shards for piece in pieces) < 2:
            raise DataError(
                f"{self.name}: the parquet files hold fewer than two documents.\n"
                "At least two are needed: one to train on and one to validate with."
            )
        train, val = _split_pieces(shards)
        self.pieces = train if split == "train" else val
        facts = [(piece.path.name, piece.path.stat().st_size, *piece[1:]) for piece in self.pieces]
        self.fingerprint = zlib.crc32(repr(facts).encode("utf-8"))

    def num_groups(self) -> int:
        return len(self.pieces)

    def group(self, index: int) -> list[str]:
        path, row_group, start, stop = self.pieces[index]
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                column = file.read_row_group(row_group, columns=["text"], use_threads=False).column(0)
            texts = column.slice(start, stop - start).to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: row group {row_group} cannot be read ({error}).\n{DAMAGED}") from error
        return [text for text in texts if text is not None]


def check_split(split: str) -> None:
    """Raises ConfigError unless `split` is "train" or "val"."""
    if split not in SPLITS:
        raise ConfigError(f"{split!r} is no split of a text source: choose train or val.")


def _pieces(path: Path) -> list[Piece]:
    """All row groups of a shard that have rows."""
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as parquet ({error}).\n{DAMAGED}") from error
    if "text" not in schema.names:
        raise DataError(
            f"{path} has no column named text; its columns are: {', '.join(schema.names) or 'none'}.\n"
            "Rename the column that holds the documents to text."
        )
    kind = schema.field("text").type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{path}: the column text holds {kind}, not strings.\nConvert it to strings.")
    return [Piece(path, index, 0, count) for index, count in enumerate(counts) if count]


def _split_pieces(shards: list[list[Piece]]) -> tuple[list[Piece], list[Piece]]:
    if len(shards) > 1:
        return [piece for pieces in shards[:-1] for piece in pieces], shards[-1]
    (pieces,) = shards
    if len(pieces) > 1:
        return pieces[:-1], pieces[-1:]
    (piece,) = pieces
    cut = piece.stop - max(1, piece.stop // 20)
    return [piece._replace(stop=cut)], [piece._replace(start=cut)]


def write_shards(
    documents: Iterable[str],
    directory: Path,
    *,
    megabytes: float,
    shards: int,
    validation: Iterable[str],
    validation_megabytes: float = 0.5,
) -> list[Path]:
    """Write `shards` parquet files from `documents` and a last one from `validation`; return their paths.

    `megabytes` (1 MB = 1,000,000 bytes of UTF-8) is the size of all training shards together; documents
    beyond it are not read, and documents that end earlier make fewer shards. The folder appears at once
    and complete; if another process made it meanwhile, that one is kept. Raises DataError for no documents.
    """
    temporary = directory.with_name(f".{directory.name}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        stream, written = iter(documents), 0
        while written < shards and _write_shard(stream, _shard(temporary, written), megabytes / shards):
            written += 1
        last = _shard(temporary, written)
        if not written or not _write_shard(iter(validation), last, validation_megabytes):
            raise DataError("there are no documents to write: both splits need at least one.")
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
        try:
            temporary.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
    except OSError as error:
        raise DataError(f"{directory} could not be written ({error}).\nIs the disk full?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(directory.glob("*.parquet"))


def _shard(directory: Path, index: int) -> Path:
    return directory / f"shard_{index:05d}.parquet"


def _write_shard(documents: Iterator[str], path: Path, megabytes: float) -> int:
    """Write documents until they make `megabytes`; returns how many. Writes no file for none."""
    count, left, writer, group = 0, megabytes * 1e6, None, []
    try:
        for document in documents:
            group.append(document)
            count, left = count + 1, left - len(document.encode("utf-8"))
            if len(group) == ROWS_PER_GROUP or left <= 0:
                writer = _write_group(writer, path, group)
                group = []
            if left <= 0:
                break
        if group:
            writer = _write_group(writer, path, group)
    finally:
        if writer is not None:
            writer.close()
    return count


def _write_group(writer: pq.ParquetWriter | None, path: Path, group: list[str]) -> pq.ParquetWriter:
    table = pa.table({"text": pa.array(group, pa.string())})
    writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True)
    writer.write_table(table)
    return writer


def _visible_files(path: Path) -> list[Path]:
    """The file itself, or all files below a folder in a fixed order; nothing in a hidden folder."""
    if path.is_file():
        return [path]
    try:
        found = [(file.relative_to(path).parts, file) for file in path.rglob("*") if file.is_file()]
    except OSError as error:
        raise DataError(f"{path} cannot be searched ({error}).\nCheck its permissions.") from error
    return [file for parts, file in sorted(found) if not any(part.startswith(".") for part in parts)]


def split_documents(files: Sequence[Path], folder: Path) -> tuple[list[str], list[str]]:
    """(train, val) documents of text files: each file is one, cut between paragraphs where it is long.

    A document's own text decides its split (crc32, one in 20), so that a copy never stands in both; at
    least one is for validation. Raises DataError for fewer than two different documents, or for a file
    that is not UTF-8.
    """
    pieces = [piece for file in files for piece in cut_paragraphs(_read_text(file)) if piece.strip()]
    keyed = [(zlib.crc32(piece.encode("utf-8")), piece) for piece in pieces]
    keys = sorted({key for key, _ in keyed})
    if len(keys) < 2:
        raise DataError(
            f"{folder}: {'only one document' if keys else 'no text'} in .txt or .md files.\n"
            "At least two different documents are needed, one to train on and one to validate with: "
            "add files, or cut one in two."
        )
    held_out = {key for key in keys if key % VAL_EVERY == 0}
    if not held_out or len(held_out) == len(keys):
        held_out = {keys[0]}
    train = [text for key, text in keyed if key not in held_out]
    return train, [text for key, text in keyed if key in held_out]


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}.\n"
            "Open it in an editor and save it with the encoding UTF-8, or move it out of the folder."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).\nCheck its permissions.") from error


def cut_paragraphs(text: str, limit: int = LONGEST_DOCUMENT) -> list[str]:
    """`text` in pieces of at most `limit` characters, which joined give it back.

    It is cut behind an empty line where one stands in the second half of a piece, else behind a line, else
    behind a word, else anywhere.
    """
    pieces, start = [], 0
    while len(text) - start > limit:
        half, end = start + limit // 2, start + limit
        cuts = (text.rfind(mark, half, end) + len(mark) for mark in ("\n\n", "\n", " "))
        cut = next((cut for cut in cuts if cut > half), end)
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]


def _cached(name: str, fingerprint: str, write: Callable[[Path], object]) -> list[Path]:
    """The shards of `home()/data/NAME-HASH`, written by `write(folder)` if they are not there."""
    digest = hashlib.sha256(fingerprint.encode("utf-8")).hexdigest()[:12]
    directory = home() / "data" / f"{name}-{digest}"
    if not directory.is_dir():
        write(directory)
    return sorted(directory.glob("*.parquet"))


def _tinyworld(megabytes: float) -> list[Path]:
    # Imported here: a folder of one's own text needs none of TinyWorld's tables.
    import nanolab.tinyworld
    from nanolab.tinyworld.documents import documents

    def write(directory: Path) -> None:
        train, val = documents("train"), documents("val")
        # One document in fifty is for validation: half a megabyte of it means making 25 MB.
        write_shards(
            train, directory, megabytes=megabytes, shards=4,
            validation=val, validation_megabytes=min(0.5, megabytes / 24),
        )  # fmt: skip

    root = Path(nanolab.tinyworld.__path__[0])
    digest = hashlib.sha256(str(megabytes).encode("utf-8"))
    for file in _visible_files(root):
        if file.suffix in (".py", ".csv", ".json", ".txt"):
            digest.update(file.relative_to(root).as_posix().encode("utf-8") + b"\0")
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return _cached("tinyworld", digest.hexdigest(), write)


def _harvest(name: str, megabytes: float, libraries: bool, read: Callable[[Path], str]) -> list[Path]:
    """Shards of the text that `read` finds in installed Python files, one file in 20 for validation."""
    files = python_files(libraries)

    def documents(validation: bool) -> Iterator[str]:
        chosen = (file for key, _, file in files if (key % VAL_EVERY == 0) == validation)
        pieces = itertools.chain.from_iterable(cut_paragraphs(read(file)) for file in chosen)
        return (piece for piece in pieces if piece.strip())

    def write(directory: Path) -> None:
        write_shards(documents(False), directory, megabytes=megabytes, shards=4, validation=documents(True))

    return _cached(name, repr([megabytes, *(label for _, label, _ in files)]), write)


def _python(megabytes: float) -> list[Path]:
    return _harvest("python", megabytes, False, source_code)


def _docstrings(megabytes: float) -> list[Path]:
    return _harvest("docstrings", megabytes, True, UnseenProse().read)


CORPORA: dict[str, Callable[[float], list[Path]]] = {
    "tinyworld": _tinyworld,
    "docstrings": _docstrings,
    "python": _python,
}
