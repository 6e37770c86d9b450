"""Records of local files: text, JSON, Parquet and Arrow, plain or compressed, from any position on.

Every record has a place, file and line (or row), and every byte of a file belongs to a record: what is malformed is
yielded with its problem instead of being passed over, and the records behind it are still read.
"""

import bz2
import codecs
import gzip
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from trainkit.data.documents import BadRecord
from trainkit.data.table_files import END, Item, check_text, explain_bytes, read_arrow, read_parquet

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FileFormat = Literal["text", "json", "parquet", "arrow"]
SampleBy = Literal["line", "paragraph", "document"]

DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)


@dataclass(frozen=True, slots=True)
class Layout:
    """How records lie in a file."""

    format: FileFormat
    field: str = "text"
    """Column of JSON, Parquet and Arrow that holds the text."""
    sample_by: SampleBy = "paragraph"
    """What a record of a text file is."""


class FileRecords:
    """One pass over files, in the order given.

    Text and JSON come as bytes, which `decode` turns into text: a rank need not decode what is not its own.
    """

    def __init__(self, files: Sequence[str], layout: Layout) -> None:
        """Raises ValueError if Parquet or Arrow files lack the field, naming those there are."""
        self.files, self.layout = tuple(files), layout
        self.file, self.position, self.number = 0, 0, 0
        self.sizes = [Path(file).stat().st_size for file in files]

    def __iter__(self) -> Iterator[tuple[str, Any, str]]:
        while self.file < len(self.files):
            path = self.files[self.file]
            items = iter(()) if self.position == END else self._read(path)
            for position, number, label, payload, problem in items:
                self.position, self.number = position, number
                yield f"{path}:{label}", payload, problem
            self.file, self.position, self.number = self.file + 1, 0, 0

    def _read(self, path: str) -> Iterator[Item]:
        match self.layout.format:
            case "parquet":
                return read_parquet(path, self.layout.field, self.position, self.number)
            case "arrow":
                return read_arrow(path, self.layout.field, self.number)
            case "json":
                return _read_json(path, self.position, self.number)
            case "text":
                return _read_text(path, self.layout.sample_by, self.position, self.number)

    def decode(self, payload: Any) -> str:
        """Return a payload's text; raises BadRecord saying what is wrong with it."""
        return decode_json(payload, self.layout.field) if self.layout.format == "json" else decode_text(payload)

    def bytes_done(self) -> int:
        """Return how far this pass is, in bytes of all files; in whole files where no more is known."""
        inside = max(0, self.position) if self.layout.format in ("text", "json") else 0
        current = self.sizes[self.file] if self.file < len(self.files) else 0
        return sum(self.sizes[: self.file]) + min(inside, current)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and sizes by which changed files are noticed."""
        return {"file": self.file, "position": self.position, "number": self.number, "sizes": list(self.sizes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position; raises ValueError if the files have changed."""
        if state["sizes"] != self.sizes:
            raise ValueError(
                f"{name_files(self.files)} changed since the checkpoint was saved (other files or sizes), so its "
                "position there means nothing now; restore the files, or start a new run from the weights"
            )
        self.file, self.position, self.number = state["file"], state["position"], state["number"]


def name_files(files: Sequence[str]) -> str:
    """Name one or several files."""
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def open_decompressed(path: str) -> BinaryIO:
    """Open a file for reading, decompressed if it begins like gzip, bzip2, xz or zstandard."""
    opener = _find_decompressor(path)
    return opener(path) if opener else open(path, "rb")


def is_compressed(path: str | Path) -> bool:
    """Tell whether open_decompressed gives something else than the file's own bytes."""
    return _find_decompressor(path) is not None


def _find_decompressor(path: str | Path) -> Callable[[str], Any] | None:
    with open(path, "rb") as file:
        magic = file.read(6)
    return next((opener for start, opener in DECOMPRESSORS.items() if magic.startswith(start)), None)


def _refuse_zip(path: str) -> Any:
    raise ValueError(f"{path}: zip archives hold several files; unpack it, and name what was in it")


JSON_DECODER, JSON_WHITESPACE = json.JSONDecoder(), " \t\r\n"
DECOMPRESSORS: Mapping[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": zstd.open,
    b"PK\x03\x04": _refuse_zip,
}
"""By the bytes that such files begin with."""


def _read_lines(path: str, position: int, number: int) -> Iterator[Item]:
    """Yield every line with its end; a file that cannot be read further ends with a problem."""
    try:
        with open_decompressed(path) as file:
            file.seek(position)
            for line in file:
                position, number = position + len(line), number + 1
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield position, number, number, line, ""
    except DAMAGED as error:
        yield END, number, number + 1, None, f"the file cannot be read from here on: {error}"


def _read_text(path: str, sample_by: SampleBy, position: int, number: int) -> Iterator[Item]:
    if sample_by == "line":
        yield from _read_lines(path, position, number)
        return
    lines: list[bytes] = []
    for item in _read_lines(path, position, number):
        if item[4]:
            if lines:
                yield position, number, number - len(lines) + 1, b"".join(lines), ""
            yield item
            return
        position, number, _, line, _ = item
        if sample_by == "document" or line.strip(b"\r\n"):
            lines.append(line)
        elif lines:
            yield position, number, number - len(lines), b"".join(lines), ""
            lines = []
    if lines:
        yield position, number, number - len(lines) + 1, b"".join(lines), ""


def _read_json(path: str, position: int, number: int) -> Iterator[Item]:
    """Yield one object per line; of a file that is one JSON array, one per element."""
    if _is_json_array(path):
        yield from _read_json_array(path, number)
        return
    for item in _read_lines(path, position, number):
        if item[4] or item[3].strip():
            yield item


def _is_json_array(path: str) -> bool:
    try:
        with open_decompressed(path) as file:
            return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    except DAMAGED:
        return False


def _read_json_array(path: str, number: int) -> Iterator[Item]:
    try:
        with open_decompressed(path) as file:
            elements = json.loads(file.read())
    except (*DAMAGED, ValueError) as error:
        yield END, number, number + 1, None, f"the JSON array cannot be read: {error}"
        return
    for index, element in enumerate(elements[number:], start=number + 1):
        yield 0, index, index, json.dumps(element).encode(), ""


def decode_text(payload: bytes | str) -> str:
    """Return text without its last line end, others as "\\n"; raises BadRecord if it is not UTF-8."""
    if isinstance(payload, str):
        return payload
    try:
        return payload.decode().replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise BadRecord(explain_bytes(error)) from None


def decode_json(payload: bytes, field: str) -> str:
    """Return the text in one field of a JSON object; raises BadRecord saying what is wrong."""
    try:
        # Half the time of json.loads, which first finds out what every caller here knows.
        line = payload.decode().strip(JSON_WHITESPACE)
        record, end = JSON_DECODER.raw_decode(line)
        if end < len(line):
            raise json.JSONDecodeError("Extra data", line, end)
    except UnicodeDecodeError as error:
        raise BadRecord(explain_bytes(error)) from None
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"broken JSON: {error}") from None
    if not isinstance(record, dict):
        raise BadRecord(f"a JSON {type(record).__name__}, not an object with fields")
    if field not in record:
        raise BadRecord(f'no field "{field}"; it has {", ".join(record) or "none"}')
    text, problem = check_text(record[field], field)
    if problem:
        raise BadRecord(problem)
    return text
