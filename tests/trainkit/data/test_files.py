"""Files read record by record: every one has a place, and broken ones are found where they are."""

import bz2
import functools
import gzip
import json
import lzma
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.data.documents import BadRecord
from trainkit.data.files import FileRecords, Layout, decode_json, decode_text, zstd

LINES, PARAGRAPHS, WHOLE = (Layout("text", sample_by=each) for each in ("line", "paragraph", "document"))
JSON = Layout("json")
# As the zstd command writes files, so that damage shows; the library's default is no checksum.
compress_zstd = functools.partial(zstd.compress, options={zstd.CompressionParameter.checksum_flag: 1})
COMPRESSORS = [
    gzip.compress,
    functools.partial(bz2.compress, compresslevel=1),
    functools.partial(lzma.compress, preset=0),
    compress_zstd,
]


def read(path, layout):
    """Return [place behind the path, text or problem] of every record."""
    records = FileRecords([str(path)], layout)
    found = []
    for place, payload, problem in records:
        try:
            found.append([place.removeprefix(f"{path}:"), problem or records.decode(payload)])
        except BadRecord as error:
            found.append([place.removeprefix(f"{path}:"), f"bad: {error}"])
    return found


@pytest.fixture
def write(tmp_path):
    def put(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


def test_lines_keep_empty_ones_and_lose_line_ends(write):
    assert read(write("one\r\n\ntwo three\nfour"), LINES) == [
        ["1", "one"],
        ["2", ""],
        ["3", "two three"],
        ["4", "four"],
    ]


def test_paragraphs_end_at_empty_lines_and_are_named_by_their_first(write):
    text = "\n\none\ntwo\n\n\r\n\nthree\n\nfour\nfive\n"
    assert read(write(text), PARAGRAPHS) == [["3", "one\ntwo"], ["8", "three"], ["10", "four\nfive"]]


def test_a_document_may_be_a_whole_file(write):
    assert read(write("one\n\ntwo\n"), WHOLE) == [["1", "one\n\ntwo"]]


def test_a_byte_order_mark_is_no_text(write):
    assert read(write(b"\xef\xbb\xbfone"), LINES) == [["1", "one"]]
    assert read(write(b'\xef\xbb\xbf{"text": "one"}'), JSON) == [["1", "one"]]


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_compressed_files_are_read_whatever_their_name(write, compress):
    assert read(write(compress(b"one\ntwo\n")), LINES) == [["1", "one"], ["2", "two"]]


def test_zip_archives_are_refused_with_the_remedy(write):
    with pytest.raises(ValueError, match="unpack it"):
        read(write(b"PK\x03\x04rest"), LINES)


def test_json_lines_that_are_broken_are_named_and_the_next_ones_read(write):
    lines = [
        b'{"text": "one"}',
        b'{"text": "tw',
        b"",
        b'{"body": "b", "title": "t"}',
        b'{"text": 5}',
        b'{"text": "caf\xe9"}',
        b'["text"]',
        b'{"text": "last"}',
    ]
    found = dict(read(write(b"\n".join(lines)), JSON))
    assert found.pop("1") == "one"
    assert found.pop("8") == "last"
    expected = {
        "2": "bad: broken JSON: Unterminated string",
        "4": 'bad: no field "text"; it has body, title',
        "5": 'bad: "text" holds 5, which is not text',
        "6": "bad: not UTF-8 text: invalid continuation byte at its byte 14",
        "7": "bad: a JSON list, not an object with fields",
    }
    assert found.keys() == expected.keys()
    assert all(found[line].startswith(problem) for line, problem in expected.items())


@given(
    before=st.sampled_from(["", " ", "\t\r", "\u2003", "x"]),
    text=st.text(max_size=5),
    after=st.sampled_from(["", "\n", " \r\n", "\u2003", "}", " {}", ", 1"]),
    is_ascii=st.booleans(),
)
def test_a_line_is_taken_if_and_only_if_json_takes_it(before, text, after, is_ascii):
    line = before + json.dumps({"text": text}, ensure_ascii=is_ascii) + after
    try:
        expected = json.loads(line)["text"]
    except ValueError:
        with pytest.raises(BadRecord, match="broken JSON"):
            decode_json(line.encode(), "text")
    else:
        assert decode_json(line.encode(), "text") == expected


def test_a_json_array_is_as_good_as_lines(write):
    elements = [{"text": "one"}, {"no": 1}, {"text": "two"}]
    found = read(write(json.dumps(elements, indent=2)), JSON)
    assert found == [["1", "one"], ["2", 'bad: no field "text"; it has no'], ["3", "two"]]
    assert read(write('[{"text": "one"},'), JSON)[0][1].startswith("the JSON array cannot be read")


def test_text_that_is_not_utf8_is_named_and_the_rest_read(write):
    found = read(write(b"good\n\nline\ncaf\xe9\n\ngood again\n"), PARAGRAPHS)
    assert found[0] == ["1", "good"]
    assert found[1][0] == "3"
    assert found[1][1].startswith("bad: not UTF-8 text")
    assert found[2] == ["6", "good again"]


@pytest.mark.parametrize("compress", COMPRESSORS)
@pytest.mark.parametrize("layout", [LINES, PARAGRAPHS])
@pytest.mark.parametrize("is_cut_off", [True, False])
def test_a_damaged_compressed_file_ends_with_a_problem_told_once(write, layout, compress, is_cut_off):
    rng = random.Random(0)
    whole = compress(b"".join(b"line %x\n\n" % rng.getrandbits(64) for _ in range(30_000)))
    half = len(whole) // 2
    path = write(whole[:half] if is_cut_off else whole[:half] + b"\xff\x00" * 50 + whole[half + 100 :])
    records = FileRecords([str(path)], layout)
    items = list(records)
    assert len(items) > 100
    assert items[-1][2].startswith("the file cannot be read from here on")
    assert not any(problem for _, _, problem in items[:-1])
    again = FileRecords([str(path)], layout)
    again.load_state_dict(records.state_dict())
    assert list(again) == []


@pytest.fixture
def parquet(tmp_path):
    """Write rows in groups of ten; return the path."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def put(texts, **columns):
        path = tmp_path / "file.parquet"
        table = pyarrow.table({"text": texts, **columns})
        parquet.write_table(
            table, path, row_group_size=10, compression="snappy", use_dictionary=False, write_page_checksum=True
        )
        return path

    return put


def test_a_corrupt_parquet_page_costs_its_rows_and_no_others(parquet):
    from pyarrow import parquet as reader

    path = parquet([f"story {index} " * 50 for index in range(30)])
    column = reader.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    end = column.data_page_offset + column.total_compressed_size
    content[end - 40 : end] = b"\xff" * 40
    path.write_bytes(content)
    found = read(path, Layout("parquet"))
    assert [place for place, _ in found] == [str(row) for row in range(1, 31)]
    assert all(text.startswith("the page with this row cannot be read") for _, text in found[10:20])
    assert all(text.startswith("story") for _, text in found[:10] + found[20:])


def test_a_parquet_page_that_still_reads_as_text_is_caught_by_its_checksum(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    path, options = (
        tmp_path / "plain.parquet",
        {"compression": "none", "use_dictionary": False, "write_statistics": False},
    )
    writer.write_table(pyarrow.table({"text": ["one", "zwei"]}), path, write_page_checksum=True, **options)
    path.write_bytes(path.read_bytes().replace(b"zwei", b"drei"))
    assert all(text.startswith("the page with this row cannot be read") for _, text in read(path, Layout("parquet")))


def test_a_value_that_is_no_text_is_named_with_its_row(parquet):
    assert read(parquet(["one", None, "three"]), Layout("parquet"))[1] == ["2", '"text" holds None, which is not text']


def test_columns_that_lack_the_field_are_listed(parquet):
    with pytest.raises(ValueError, match=r'file.parquet: no field "story"; it has text, title'):
        read(parquet(["one"], title=["t"]), Layout("parquet", field="story"))


def test_parquet_text_that_is_not_utf8_costs_its_row_only(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    values = pyarrow.array([b"one", b"caf\xe9", b"three"]).view(pyarrow.string())
    writer.write_table(pyarrow.table({"text": values}), tmp_path / "latin.parquet")
    found = read(tmp_path / "latin.parquet", Layout("parquet"))
    assert [text for _, text in found[::2]] == ["one", "three"]
    assert found[1] == ["2", "not UTF-8 text: unexpected end of data at its byte 4"]


def test_what_is_no_parquet_file_is_a_problem_not_a_crash(write):
    assert read(write("hello"), Layout("parquet"))[0][1].startswith("not a Parquet file")


def test_a_position_in_files_that_have_changed_is_refused(write):
    records = FileRecords([str(write("one\ntwo\n"))], LINES)
    next(iter(records))
    path = write("one\ntwo\nthree\n")
    with pytest.raises(ValueError, match=r"changed since the checkpoint was saved"):
        FileRecords([str(path)], LINES).load_state_dict(records.state_dict())


def test_a_pass_knows_how_many_bytes_it_has_read(write):
    records = FileRecords([str(write("12345\n789\n"))], LINES)
    iterator = iter(records)
    next(iterator)
    assert records.bytes_done() == 6
    assert len(list(iterator)) == 1
    assert records.bytes_done() == 10


def test_lone_surrogates_survive_decoding_and_are_left_to_the_encoder():
    assert decode_json(b'{"text": "\\ud800"}', "text") == "\ud800"
    assert decode_text("as it is") == "as it is"
