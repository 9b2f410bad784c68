from __future__ import annotations

import random
import threading
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanolab import corpus
from nanolab.corpus import ListSource, ShardSource, cut_paragraphs, text_source, write_shards
from nanolab.errors import ConfigError, DataError
from nanolab.installed import prose


def write_parquet(path: Path, texts: list, *, group: int = 4, column: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: texts}), path, row_group_size=group, write_page_checksum=True)
    return path


def documents(source: corpus.TextSource) -> list[str]:
    return list(source.documents())


def split(path: Path) -> tuple[list[str], list[str]]:
    return documents(text_source(path, "train")), documents(text_source(str(path), "val"))


def names(count: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


# ---- parquet shards


def test_the_last_shard_is_validation(tmp_path):
    for index in range(3):
        write_parquet(tmp_path / f"shard_{index}.parquet", names(6, f"s{index}-"))
    assert split(tmp_path) == (names(6, "s0-") + names(6, "s1-"), names(6, "s2-"))


def test_the_last_row_group_of_a_single_shard_is_validation(tmp_path):
    write_parquet(tmp_path / "only.parquet", names(10))
    assert split(tmp_path) == (names(10)[:8], names(10)[8:])


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (39, 1), (40, 2), (100, 5)])
def test_a_single_row_group_gives_its_last_twentieth(tmp_path, count, held_out):
    path = write_parquet(tmp_path / "only.parquet", names(count), group=1000)
    assert split(path) == (names(count)[:-held_out], names(count)[-held_out:])


def test_an_empty_last_shard_does_not_make_validation_empty(tmp_path):
    write_parquet(tmp_path / "a.parquet", names(4))
    write_parquet(tmp_path / "b.parquet", names(2, "val"))
    write_parquet(tmp_path / "c.parquet", pa.array([], pa.string()))
    assert split(tmp_path) == (names(4), names(2, "val"))


@pytest.mark.parametrize("texts", [[], ["one"]])
def test_fewer_than_two_documents_is_an_error(tmp_path, texts):
    write_parquet(tmp_path / "only.parquet", pa.array(texts, pa.string()))
    with pytest.raises(DataError, match="fewer than two documents"):
        split(tmp_path)


def test_null_documents_are_skipped(tmp_path):
    write_parquet(tmp_path / "only.parquet", ["a", None, "b", None, "c"])
    assert split(tmp_path) == (["a", "b"], ["c"])


def test_other_columns_are_named(tmp_path):
    write_parquet(tmp_path / "only.parquet", ["a"], column="content")
    with pytest.raises(DataError, match="only.parquet has no column named text; its columns are: content"):
        split(tmp_path)
    write_parquet(tmp_path / "only.parquet", [1, 2])
    with pytest.raises(DataError, match="text holds int64, not strings"):
        split(tmp_path)


def test_what_is_no_parquet_is_named(tmp_path):
    (tmp_path / "only.parquet").write_bytes(b"<html>404</html>" * 9)
    with pytest.raises(DataError, match=r"only\.parquet cannot be read as parquet.*\n.*fetch it again"):
        split(tmp_path)


def test_a_damaged_page_is_never_read_as_other_text(tmp_path):
    """With page checksums: of 150 flipped bits none may change the text silently."""
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefgh \n", k=200)) for _ in range(64)]
    write_shards(texts, tmp_path / "s", megabytes=1, shards=1, validation=["v"])
    path = tmp_path / "s" / "shard_00000.parquet"
    original = path.read_bytes()
    refused = 0
    for _ in range(150):
        damaged = bytearray(original)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert documents(ShardSource([path, path.with_name("shard_00001.parquet")], "train")) == texts
        except DataError:
            refused += 1
    assert refused > 100


def test_the_fingerprint_tells_texts_and_splits_apart(tmp_path):
    write_parquet(tmp_path / "a.parquet", names(9))
    train, again, val = (text_source(tmp_path, split).fingerprint for split in ("train", "train", "val"))
    write_parquet(tmp_path / "b.parquet", names(9))
    assert train == again and len({train, val, text_source(tmp_path, "train").fingerprint}) == 3
    assert ListSource(["a", "b"]).fingerprint != ListSource(["ab"]).fingerprint


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="choose train or val"):
        text_source(tmp_path, "test")


# ---- writing shards


def test_shards_come_back_as_they_were_written(tmp_path):
    texts = [f"{i} été\n\n" + "x" * (i % 97) for i in range(1000)]
    paths = write_shards(iter(texts), tmp_path / "s", megabytes=1, shards=3, validation=["v1", "v2"])
    assert split(tmp_path / "s") == (texts, ["v1", "v2"])
    assert pq.ParquetFile(paths[0]).metadata.row_group(0).num_rows == 64
    assert pq.ParquetFile(paths[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_megabytes_bound_an_endless_stream(tmp_path):
    endless = iter(lambda: "x" * 1000, None)
    paths = write_shards(
        endless, tmp_path / "s", megabytes=0.4, shards=4, validation=endless, validation_megabytes=0.05
    )
    assert [pq.read_metadata(path).num_rows for path in paths] == [100, 100, 100, 100, 50]


@pytest.mark.parametrize(("train", "val"), [([], ["v"]), (["t"], [])])
def test_nothing_to_write_leaves_nothing(tmp_path, train, val):
    with pytest.raises(DataError, match="no documents to write"):
        write_shards(train, tmp_path / "s", megabytes=1, shards=1, validation=val)
    assert not list(tmp_path.iterdir())


def test_two_writers_at_once_leave_one_complete_folder(tmp_path):
    barrier = threading.Barrier(2)

    def write(letter: str) -> None:
        barrier.wait()
        write_shards([letter] * 200, tmp_path / "s", megabytes=1, shards=1, validation=[letter])

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    train, val = split(tmp_path / "s")
    assert len(train) == 200 and set(train) == set(val)


# ---- a learner's own files


def test_text_files_are_found_below_and_split_once(tmp_path):
    for i in range(60):
        file = tmp_path / f"chapter{i % 3}" / f"{i}.{'md' if i % 2 else 'TXT'}"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"story {i}\r\nends", encoding="utf-8-sig", newline="")
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "image.png").write_bytes(b"\xff\xfe")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "notes.txt").write_text("hidden", encoding="utf-8")
    train, val = split(tmp_path)
    assert sorted(train + val) == sorted(f"story {i}\nends" for i in range(60))
    assert 1 <= len(val) <= 12 and (train, val) == split(tmp_path)


def test_copies_never_stand_in_both_splits(tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"text {i % 4}", encoding="utf-8")
    train, val = split(tmp_path)
    assert val and train and not set(train) & set(val)


@pytest.mark.parametrize("texts", [[], ["one"], ["same", "same"], ["", "  "]])
def test_fewer_than_two_different_files_is_an_error(tmp_path, texts):
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="At least two different documents are needed"):
        split(tmp_path)


def test_not_everything_becomes_validation(tmp_path):
    """Documents that all fall to validation by their crc32 still leave some to train on."""
    held_out = [text for text in names(200) if zlib.crc32(text.encode("utf-8")) % 20 == 0]
    for text in held_out:
        (tmp_path / f"{text}.txt").write_text(text, encoding="utf-8")
    train, val = split(tmp_path)
    assert len(held_out) > 2 and len(val) == 1 and len(train) == len(held_out) - 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=9).filter(str.strip), min_size=2, max_size=30, unique=True))
def test_two_documents_suffice_for_two_splits(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("own")
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(f"{i} {text}", encoding="utf-8", newline="")
    train, val = split(folder)
    assert train and val and len(train) + len(val) == len(texts)


def test_a_file_that_is_not_utf8_is_named_with_its_byte(tmp_path):
    (tmp_path / "good.txt").write_text("fine", encoding="utf-8")
    (tmp_path / "letter.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"letter\.txt is not UTF-8 text: byte 3 is 0xe9\.\n.*save it"):
        split(tmp_path)


def test_a_missing_folder_lists_the_choices(tmp_path):
    with pytest.raises(DataError, match="no text corpus or folder.*\n.*tinyworld, docstrings, python"):
        text_source(tmp_path / "nowhere", "train")


@given(st.text(alphabet="ab \n", max_size=300), st.integers(2, 40))
def test_pieces_join_to_the_text_and_keep_the_limit(text, limit):
    pieces = cut_paragraphs(text, limit)
    assert "".join(pieces) == text and all(len(piece) <= limit for piece in pieces)


def test_long_texts_are_cut_between_paragraphs():
    assert cut_paragraphs("one two\n\nthree\nfour five", 15) == ["one two\n\n", "three\nfour five"]
    assert cut_paragraphs("three\nfour five", 14) == ["three\nfour ", "five"]
    assert cut_paragraphs("abcdef", 4) == ["abcd", "ef"]


# ---- corpora that need no download


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NANOLAB_HOME", str(tmp_path))
    return tmp_path


def test_tinyworld_is_written_once(home):
    pytest.importorskip("nanolab.tinyworld.documents")
    train = documents(text_source("tinyworld", "train", megabytes=0.05))
    (folder,) = (home / "data").iterdir()
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    val = documents(text_source("tinyworld", "val", megabytes=0.05))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    assert len(written) == 5 and not set(train) & set(val)
    assert 50_000 <= sum(len(text.encode("utf-8")) for text in train) < 70_000


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """A small Python installation: standard library and one library, with files that cannot be read."""
    docs = '"""{0} explains to everybody how this small module really works.\n\n>>> code(1)\n2\n"""\n'
    for i in range(60):
        file = tmp_path / "lib" / f"module{i}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(docs.format(f"Number{'abcdefghij'[i // 10]}{'abcdefghij'[i % 10]}"), encoding="utf-8")
    (tmp_path / "lib" / "test").mkdir()
    (tmp_path / "lib" / "test" / "test_x.py").write_text(docs.format("Tests"), encoding="utf-8")
    (tmp_path / "lib" / "latin.py").write_bytes(b"# \xff\n")
    (tmp_path / "lib" / "pydoc_data").mkdir()
    topic = "'The with statement wraps a block of code with methods.\\n'"
    topics = tmp_path / "lib" / "pydoc_data" / "topics.py"
    topics.write_text(f"topics = {{'with': {topic}}}", encoding="utf-8")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "library.py").write_text(docs.format("Library"), encoding="utf-8")
    folders = {"stdlib": str(tmp_path / "lib"), "purelib": str(tmp_path / "site")}
    monkeypatch.setattr("sysconfig.get_path", folders.__getitem__)
    return tmp_path


def test_python_source_is_whole_files_of_the_standard_library(home, installed):
    train, val = split_of("python")
    assert len(train + val) == 61 and all("code(1)" in text or "topics" in text for text in train + val)
    assert not any("Library" in text or "Tests" in text for text in train + val)


def test_docstrings_are_the_prose_of_everything_installed(home, installed):
    train, val = split_of("docstrings")
    assert len(train + val) == 62
    for start in ("Library explains", "The with statement", "Numberfj explains"):
        assert sum(text.startswith(start) for text in train + val) == 1
    assert not any("code(1)" in text or "Tests" in text for text in train + val)


def split_of(kind: str) -> tuple[list[str], list[str]]:
    train, val = (documents(text_source(kind, split, megabytes=1)) for split in ("train", "val"))
    assert train and val and not set(train) & set(val)
    return train, val


def test_what_is_installed_is_harvested_again_after_a_change(home, installed):
    split_of("python")
    split_of("python")
    assert len(list((home / "data").iterdir())) == 1
    (installed / "lib" / "new.py").write_text("x = 1\n", encoding="utf-8")
    split_of("python")
    assert len(list((home / "data").iterdir())) == 2


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Count all words\n  that are in this text.\n\nNo.", ["Count all words that are in this text."]),
        (">>> Add the two of them and then print everything.", []),
        ("Args: the first of them is a number and the second too.", []),
        ("Calls open(path) and then reads everything that is in there.", []),
        ("No full stop stands at the end of this long line", []),
        ("", []),
    ],
)
def test_prose_is_told_from_code(docstring, expected):
    assert prose(docstring) == expected
