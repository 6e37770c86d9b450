"""Rows of Parquet and Arrow files, from any row on."""

from collections.abc import Iterator, Sequence
from typing import Any

Item = tuple[int, int, int, Any, str]
"""(position behind the record, lines up to there, line it begins at, payload, problem); also in blocks and rows."""

END = -1
"""Position of a file of which nothing more can be read."""
ROWS_PER_READ = 256


def read_parquet(path: str, field: str, group: int, number: int) -> Iterator[Item]:
    """Yield rows; `number` counts those before, of which the row groups before `group` hold the most."""
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
    except (OSError, ArrowException) as error:
        yield END, number, number + 1, None, f"not a Parquet file: {error}"
        return
    with file:
        _require_field(path, field, file.schema_arrow.names)
        sizes = [file.metadata.row_group(each).num_rows for each in range(file.num_row_groups)]
        for each in range(group, len(sizes)):
            first, end = sum(sizes[:each]), sum(sizes[: each + 1])
            try:
                batches = file.iter_batches(ROWS_PER_READ, row_groups=[each], columns=[field], use_threads=False)
                texts = (text for batch in batches for text in _texts(batch, field))
                for row, text in enumerate(texts, start=first + 1):
                    if row > number:
                        number = row
                        yield each, number, number, *text
            except (OSError, ArrowException) as error:
                while number < end:
                    number += 1
                    yield each, number, number, None, f"the page with this row cannot be read: {error}"


def read_arrow(path: str, field: str, number: int) -> Iterator[Item]:
    """Yield rows; `number` counts those before."""
    from pyarrow import ArrowException

    row, index = 0, 0
    try:
        with _open_arrow(path) as reader:
            _require_field(path, field, reader.schema.names)
            for index, batch in enumerate(_arrow_batches(reader)):
                if row + len(batch) > number:
                    for text in _texts(batch.slice(number - row), field):
                        number += 1
                        yield index, number, number, *text
                row += len(batch)
    except (OSError, ArrowException) as error:
        yield END, number, number + 1, None, f"the file cannot be read from here on: {error}"


def _open_arrow(path: str) -> Any:
    """Open either kind of Arrow file: with an index at its end, or a stream, as `datasets` writes."""
    import pyarrow

    source = pyarrow.memory_map(path)
    try:
        return pyarrow.ipc.open_file(source)
    except pyarrow.ArrowInvalid:
        return pyarrow.ipc.open_stream(source)


def _arrow_batches(reader: Any) -> Iterator[Any]:
    import pyarrow

    if isinstance(reader, pyarrow.ipc.RecordBatchFileReader):
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return iter(reader)


def _texts(batch: Any, field: str) -> Iterator[tuple[Any, str]]:
    """Yield (payload, problem) of every value in a column of a record batch."""
    for value in batch.column(field):
        try:
            yield check_text(value.as_py(), field)
        except UnicodeDecodeError as error:
            yield None, explain_bytes(error)


def _require_field(path: str, field: str, names: Sequence[str]) -> None:
    if field not in names:
        raise ValueError(f'{path}: no field "{field}"; it has {", ".join(names)}')


def check_text(value: Any, field: str) -> tuple[Any, str]:
    """Return (payload, problem) of a value that should be text."""
    return (value, "") if isinstance(value, str) else (None, f'"{field}" holds {value!r}, which is not text')


def explain_bytes(error: UnicodeDecodeError) -> str:
    """Say what keeps bytes from being text."""
    return f"not UTF-8 text: {error.reason} at its byte {error.start + 1}"
