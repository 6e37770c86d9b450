"""From [data] to batches: the embedded corpus, local files, the Hub, or prepared Megatron files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from config.sections.data import (
    STORIES,
    CorpusSection,
    DataSection,
    DocumentsSection,
    MegatronSection,
    RowsSection,
    TokenizerFilesSection,
)
from trainkit.data.documents import Documents, IndexedDocuments, Shard, StreamedDocuments
from trainkit.data.megatron_indexed import MegatronIndexedDataset
from trainkit.data.packing import Batches, Encoded, PackedRows, PaddedRows
from trainkit.data.shuffling import Shuffled
from transformerlm.synthetic import stories
from transformerlm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class RowShape:
    """How many tokens the objective wants in a row, and how many rows in a batch."""

    context_length: int
    lookahead: int
    batch_size: int

    @property
    def row_length(self) -> int:
        """Tokens in a row."""
        return self.context_length + self.lookahead


def load_tokenizer(section: TokenizerFilesSection) -> Tokenizer:
    """Read the three files of a tokenizer."""
    return Tokenizer.from_files(section.vocab_path, section.merges_path, section.special_tokens_path)


def build_train_batches(data: DataSection, tokenizer: Tokenizer, shape: RowShape, shard: Shard) -> Batches:
    """Return one rank's endless, shuffled training batches."""
    return _build_batches(data, tokenizer, shape, shard, is_training=True)


def build_val_batches(data: DataSection, tokenizer: Tokenizer, shape: RowShape, shard: Shard) -> Batches:
    """Return one rank's validation batches from the beginning, in order, once."""
    return _build_batches(data, tokenizer, shape, shard, is_training=False)


def _build_batches(
    data: DataSection, tokenizer: Tokenizer, shape: RowShape, shard: Shard, *, is_training: bool
) -> Batches:
    documents = Encoded(_open_documents(data, shard, is_training), _encoder(data, tokenizer))
    if isinstance(data, RowsSection):
        pad = tokenizer.end_of_text_id if data.pad_token_id is None else data.pad_token_id
        return Batches(PaddedRows(documents, shape.row_length, pad), shape.batch_size)
    return Batches(PackedRows(documents, shape.row_length, overlap=shape.lookahead), shape.batch_size)


def _encoder(data: DataSection, tokenizer: Tokenizer) -> Callable[[Any], Any]:
    """Return what turns a document into ids: the end-of-text token opens each, and in a row of its own closes it."""
    end = tokenizer.end_of_text_id
    if isinstance(data, MegatronSection):
        return lambda tokens: tokens  # prepared with its end-of-text tokens
    if isinstance(data, RowsSection):
        return lambda text: [end, *tokenizer.encode(text, allowed_special="none"), end]
    return lambda text: [end, *tokenizer.encode(text, allowed_special="none")]


def _open_documents(data: DataSection, shard: Shard, is_training: bool) -> Documents[Any]:
    if isinstance(data, MegatronSection):
        prefix = data.megatron_train_prefix if is_training else data.megatron_val_prefix
        dataset = MegatronIndexedDataset(prefix)
        seed = data.shuffle_seed if is_training else None
        return IndexedDocuments(dataset.__getitem__, len(dataset), prefix, shard, is_training, seed)
    split = data.train_split if is_training else data.val_split
    if data.dataset_name == STORIES:
        return open_stories(split, shard)
    if data.streaming:
        return _open_stream(data, split, shard, is_training)
    rows = load_documents(data, split, streaming=False)
    seed = data.shuffle_seed if is_training and data.shuffle_buffer_size else None
    return IndexedDocuments(
        lambda index: _text_of(rows[index], data), len(rows), _name(data, split), shard, is_training, seed
    )


def open_stories(split: str, shard: Shard) -> IndexedDocuments[str]:
    """Return the embedded corpus: an endless sequence of stories, each a function of its index."""
    return IndexedDocuments(lambda index: stories.story(split, index), None, f"{STORIES} {split}", shard)


def _open_stream(data: DocumentsSection, split: str, shard: Shard, is_training: bool) -> Documents[Any]:
    from datasets.distributed import split_dataset_by_node

    def open_dataset() -> Any:
        dataset = load_documents(data, split, streaming=True).dataset
        return ReadableStream(split_dataset_by_node(dataset, rank=shard.rank, world_size=shard.size), data, split)

    texts = StreamedDocuments(open_dataset, lambda record: _text_of(record, data), _name(data, split), is_training)
    if is_training and data.shuffle_buffer_size:
        return Shuffled(texts, data.shuffle_buffer_size, data.shuffle_seed + shard.rank)
    return texts


def read_texts(data: CorpusSection, split: str, max_documents: int | None = None) -> Iterator[str]:
    """Yield a corpus's documents once, in order, for reading without training."""
    if data.dataset_name == STORIES:
        texts = (stories.story(split, index) for index in count())
    else:
        texts = (_text_of(record, data) for record in load_documents(data, split, streaming=True))
    return islice(texts, max_documents)


def load_documents(data: CorpusSection, split: str, *, streaming: bool) -> Any:
    """Open a split through `datasets`; raises ValueError naming the dataset if it cannot be had."""
    import datasets  # takes seconds, and the embedded corpus does not need it

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said once, by us
    options: dict[str, Any] = {"sample_by": data.sample_by} if data.dataset_name == "text" else {}
    try:
        dataset = datasets.load_dataset(
            data.dataset_name,
            data.dataset_config or None,
            data_files=data.model_dump(mode="json")["data_files"],
            split=split,
            streaming=streaming,
            **options,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise explain_unreadable(error, data, split) from error
    return ReadableStream(dataset, data, split) if streaming else dataset


class ReadableStream:
    """A streamed dataset that says which files could not be read: its errors come while it is read."""

    def __init__(self, dataset: Any, data: CorpusSection, split: str) -> None:
        self.dataset, self.data, self.split = dataset, data, split

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self.dataset
        except (OSError, ValueError) as error:
            raise explain_unreadable(error, self.data, self.split) from error

    def state_dict(self) -> dict[str, Any]:
        """Return the dataset's position."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self.dataset.load_state_dict(state)


def explain_unreadable(error: Exception, data: CorpusSection, split: str) -> ValueError:
    """Return an error that names the key, the files and the remedy."""
    name = _name(data, split)
    if data.data_files is None:
        return ValueError(
            f"data.dataset_name: {name!r} cannot be loaded: {error}. Without a network, name your own files "
            '(dataset_name = "text", "json" or "parquet" with data_files), or use "synthetic/stories"'
        )
    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, UnicodeDecodeError) for cause in causes):
        return ValueError(f"data.data_files: {name} is not UTF-8 text; convert it, as with iconv -t UTF-8")
    reason = str(causes[1] or error).rstrip(".")
    return ValueError(f"data.data_files: {name} cannot be read: {reason}; is it {data.dataset_name}?")


def _text_of(record: dict[str, Any], data: CorpusSection) -> str:
    text = record.get(data.text_field)
    if isinstance(text, str):
        return text
    if data.text_field not in record:
        raise ValueError(f'data.text_field: no field "{data.text_field}" in {_name(data)}; it has {", ".join(record)}')
    raise ValueError(f'data.text_field: "{data.text_field}" of {_name(data)} holds {text!r}, which is not text')


def _name(data: CorpusSection, split: str = "") -> str:
    if data.data_files is None:
        return f"{data.dataset_name} {split}".rstrip()
    files = data.data_files
    return _shorten(files if isinstance(files, str) else data.model_dump(mode="json")["data_files"])


def _shorten(data_files: object) -> str:
    text = str(data_files)
    return text if len(text) <= 60 else f"{text[:57]}..."
