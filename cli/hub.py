"""Datasets that the `datasets` library opens: the Hugging Face Hub, and files at an address."""

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.output import remark
from config.sections.data import CorpusSection
from trainkit.data.documents import BadRecord, Shard
from trainkit.data.files import FileRecords, Layout
from trainkit.data.streaming import RetriedPass, Retry, StreamedRecords

PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)


def stream_records(data: CorpusSection, split: str, shard: Shard, repeat: bool) -> StreamedRecords:
    """Return one rank's records, read while they are needed.

    Each rank reads all and keeps its own. Whole shards for each would be less to read, but they are never equally long:
    the ranks' epochs would drift apart, and some documents be seen more often than others.
    """
    name, retry = f"{data.dataset_name} {split}", make_retry()
    dataset = load_dataset(data, split, streaming=True)
    check = functools.partial(check_record, field=data.text_field)
    return StreamedRecords(lambda: RetriedPass(lambda: copy.copy(dataset), check, name, retry), name, shard, repeat)


def load_dataset(data: CorpusSection, split: str, *, streaming: bool) -> Any:
    """Open a split through `datasets`; raises ValueError naming the dataset if it cannot be had."""
    import datasets  # takes seconds, and the other corpora do not need it

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said once, by us
    # Interrupted reads come to our own retries, which wait longer each time and say so.
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    datasets.config.STREAMING_READ_RETRY_INTERVAL = datasets.config.STREAMING_OPEN_RETRY_INTERVAL = 0
    datasets.config.STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL = 0
    datasets.config.STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL = 0
    options: dict[str, Any] = {"sample_by": data.sample_by} if data.dataset_name == "text" else {}
    try:
        # Here the Hub's own client tries six times, waits longer each time, and says so.
        return datasets.load_dataset(
            data.dataset_name,
            data.dataset_config or None,
            data_files=data.model_dump(mode="json")["data_files"],
            split=split,
            streaming=streaming,
            **options,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"data.dataset_name: {data.dataset_name!r} cannot be loaded: {error}. Without a network, name your own "
            'files (dataset_name = "text", "json", "parquet" or "arrow" with data_files), use "synthetic/stories", or '
            "fetch the dataset while there is one: transformerlm-prepare-data --fetch-only"
        ) from error


def index_files(files: Sequence[str], layout: Layout) -> Any:
    """Return local files as a dataset that can be indexed, prepared on disk once: columns place, text, problem.

    Broken records keep their place, so that they are reported whenever they are read and not only when prepared.
    """
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({name: datasets.Value("string") for name in ("place", "text", "problem")})
    stamps = [(file.stat().st_size, file.stat().st_mtime_ns) for file in map(Path, files)]
    return datasets.Dataset.from_generator(
        _decoded_records,
        features=features,
        gen_kwargs={"files": tuple(files), "layout": layout, "stamps": tuple(stamps)},
    )


def _decoded_records(files: tuple[str, ...], layout: Layout, stamps: tuple) -> Any:
    """Yield the rows of `index_files`; the stamps are there to be hashed: changed files are prepared anew."""
    records = FileRecords(files, layout)
    for place, payload, problem in records:
        text = None
        if not problem:
            try:
                text = records.decode(payload)
                text.encode()
            except ValueError as error:
                text, problem = None, str(error)
        yield {"place": place, "text": text, "problem": problem}


def slice_rows(rows: Any, split: str) -> Any:
    """Return the part of a dataset that a slice such as "train[:95%]" names."""
    import datasets

    base = split.partition("[")[0]
    instructions = datasets.ReadInstruction.from_spec(split).to_absolute({base: len(rows)})
    indices = [index for each in instructions for index in range(*slice(each.from_, each.to).indices(len(rows)))]
    return rows.select(indices)


def check_record(record: dict[str, Any], field: str) -> tuple[Any, str]:
    """Return (text, problem) of a dataset's record."""
    if field not in record:
        return None, f'no field "{field}"; it has {", ".join(record)}'
    text = record[field]
    return (text, "") if isinstance(text, str) else (None, f'"{field}" holds {text!r}, which is not text')


def require_text(record: dict[str, Any], field: str) -> str:
    """Return a record's text; raises BadRecord saying what is wrong."""
    text, problem = check_record(record, field)
    if problem:
        raise BadRecord(problem)
    return text


def make_retry() -> Retry:
    """Return what waits for errors of the network while reading: about a minute, for six in a row."""
    import httpx

    errors: tuple[type[Exception], ...] = (OSError, httpx.HTTPError)
    try:
        import aiohttp  # what fsspec reads addresses with, if it is there
    except ImportError:
        pass
    else:
        errors = (*errors, aiohttp.ClientError)
    return Retry(errors, is_transient, remark)


def is_transient(error: BaseException) -> bool:
    """Tell whether an error of the network passes by itself: a dropped line does, a missing dataset does not."""
    import datasets
    import httpx

    if datasets.config.HF_HUB_OFFLINE:
        return False
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for each in chain:
        if isinstance(each, httpx.HTTPStatusError):
            return each.response.status_code in PASSING_STATUS
    kinds = (ConnectionError, TimeoutError, httpx.TransportError)
    return any(isinstance(each, kinds) or "aiohttp" in type(each).__module__ for each in chain)
