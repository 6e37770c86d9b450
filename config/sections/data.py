"""[data]: where text comes from and how it becomes rows of tokens. `pipeline_mode` chooses.

`dataset_name` is one of
- "synthetic/stories", "synthetic/hidden_markov": the embedded corpora, generated on the fly, no files;
- "text", "json", "parquet", "arrow": your own files, named by `data_files`;
- any dataset of the Hugging Face Hub, such as "SimpleStories/SimpleStories".
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from config.section import NonEmptyText, Section, Seed, TextList, rule

STORIES, HIDDEN_MARKOV = "synthetic/stories", "synthetic/hidden_markov"
SYNTHETIC = (STORIES, HIDDEN_MARKOV)
STANDARD_INPUT = "-"
FILE_FORMATS = ("text", "json", "parquet", "arrow")
FORMAT_OF_SUFFIX = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".arrow": "arrow"}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DataFiles = str | TextList | dict[str, str | TextList]


class TokenizerFilesSection(Section):
    """The files of a trained tokenizer, as written by transformerlm-train-tokenizer."""

    vocab_path: NonEmptyText
    """vocab.json: each token and its id."""
    merges_path: NonEmptyText
    """merges.txt: the pairs to merge, in order."""
    special_tokens_path: NonEmptyText
    """special_tokens.json: tokens that text never merges into, such as <|endoftext|>."""


class CorpusSection(Section):
    """Keys shared by everything that reads documents of text."""

    dataset_name: NonEmptyText
    """"synthetic/stories", "synthetic/hidden_markov", "text", "json", "parquet", "arrow", or a dataset of the Hugging
    Face Hub."""
    dataset_config: str = ""
    """Configuration of a Hub dataset that has several; empty for the only one."""
    data_files: DataFiles | None = None
    """For the file formats: a path or glob, a list of them, or a table split = path(s); compressed files are fine."""
    text_field: NonEmptyText = "text"
    """Column that holds the text."""
    sample_by: Literal["line", "paragraph", "document"] = "paragraph"
    """For "text": what one document is; `paragraph` ends at an empty line, `document` is a whole file."""
    on_bad_record: Literal["error", "skip"] = "error"
    """When a record is broken (not UTF-8, no such field, broken JSON): stop, or count it, report it and go on."""

    @rule("dataset_name")
    def dataset_has_a_name_not_a_path(dataset_name: str) -> str | None:
        """Refuse what is surely no dataset: a misspelt embedded corpus, or a file where its format belongs."""
        if dataset_name.startswith("synthetic/") and dataset_name not in SYNTHETIC:
            return f'there is no embedded corpus "{dataset_name}"; use "{STORIES}" or "{HIDDEN_MARKOV}"'
        file_format = FORMAT_OF_SUFFIX.get(_plain_suffix(dataset_name))
        if file_format:
            return f'this is a file; write dataset_name = "{file_format}" and data_files = "{dataset_name}"'
        return None

    @rule("data_files", "dataset_name")
    def files_where_they_are_read(data_files: object, dataset_name: str) -> str | None:
        """Require files for the file formats, and refuse them where they would silently be ignored."""
        if dataset_name in FILE_FORMATS and data_files is None:
            return f'required by dataset_name = "{dataset_name}"; name your files: data_files = "my/corpus/*.txt"'
        if dataset_name in SYNTHETIC and data_files is not None:
            return f'"{dataset_name}" reads no files; remove data_files or set dataset_name = "text"'
        if data_files is not None and not all(_file_names(data_files)):
            return "names no file; leave it out, or name your files"
        return None


class PipelineSection(Section):
    """What all pipelines share: a mode and a tokenizer."""

    pipeline_mode: str
    """How text becomes rows; chooses among the sections below."""
    tokenizer: TokenizerFilesSection
    """The tokenizer to train with."""
    prefetch_batches: NonNegativeInt = 4
    """Batches made in the background while the model trains; 0 makes each when it is needed."""


class DocumentsSection(CorpusSection, PipelineSection):
    """Keys shared by the two modes that tokenize while training."""

    train_split: NonEmptyText = "train"
    """Split to train on; with streaming = false a slice works too: "train[:95%]"."""
    val_split: NonEmptyText = "validation"
    """Split to validate on."""
    streaming: bool = True
    """Read while training, in constant memory; false prepares the whole dataset on disk first."""
    shuffle_buffer_size: NonNegativeInt = 1000
    """Documents among which the next one is drawn at random; 0 keeps the order of the corpus."""
    shuffle_seed: Seed = 0
    """Seed of that order."""
    num_workers: NonNegativeInt = 0
    """Further threads that tokenize, for long documents; the batches do not depend on it."""

    @rule("train_split", "data_files")
    def train_split_is_there(train_split: str, data_files: object) -> str | None:
        """Require a split that data_files name."""
        return missing_split(train_split, data_files)

    @rule("streaming", "train_split", "val_split")
    def slices_need_the_whole(streaming: bool, train_split: str, val_split: str) -> str | None:
        """Refuse slices of a stream, whose length nobody knows."""
        sliced = [split for split in (train_split, val_split) if "[" in split]
        return f'a stream has no slices such as "{sliced[0]}"; set streaming = false' if streaming and sliced else None


class PackedSection(DocumentsSection):
    """Documents one after the other, an end-of-text token between them, cut into full rows: nothing is padded."""

    pipeline_mode: Literal["packed"]
    """Concatenate documents and cut rows of the context length."""
    mask_documents: bool = False
    """Keep documents apart: no attention across them, and positions that start anew in each."""


class RowsSection(DocumentsSection):
    """One document per row: cut at the context length, padded up to it."""

    pipeline_mode: Literal["rows"]
    """Keep one document per row."""
    pad_token_id: NonNegativeInt
    """Token that fills short rows, such as the end-of-text token; it takes no part in loss or attention."""


class MegatronSection(PipelineSection):
    """Tokens prepared beforehand, memory-mapped from a Megatron pair of files prefix.bin and prefix.idx."""

    pipeline_mode: Literal["megatron"]
    """Read tokenized files."""
    megatron_train_prefix: NonEmptyText
    """Path of the training files, without .bin or .idx."""
    megatron_val_prefix: NonEmptyText
    """Path of the validation files, without .bin or .idx."""
    shuffle_seed: Seed = 0
    """Seed of the order of documents and rows, a new one in each epoch."""
    mask_documents: bool = False
    """Keep documents apart: no attention across them, and positions that start anew in each."""


DataSection = Annotated[PackedSection | RowsSection | MegatronSection, Field(discriminator="pipeline_mode")]


class OneSplitSection(CorpusSection):
    """Keys of what reads one split from its beginning."""

    split: NonEmptyText = "train"
    """Split to read."""
    max_documents: PositiveInt | None = None
    """Read no more than this many documents. Default: all; what is synthetic has no end and requires it."""

    @rule("split", "data_files")
    def split_is_there(split: str, data_files: object) -> str | None:
        """Require a split that data_files name."""
        return missing_split(split, data_files)

    @rule("max_documents", "dataset_name")
    def endless_corpus_is_cut(max_documents: int | None, dataset_name: str) -> str | None:
        """Require an end."""
        if dataset_name in SYNTHETIC and max_documents is None:
            return f'required by dataset_name = "{dataset_name}", which has no end; try 20000'
        return None


class TokenizerCorpusSection(OneSplitSection):
    """[data] of transformerlm-train-tokenizer: the text a tokenizer learns from."""

    data_files: DataFiles | None = None
    """A path or glob, a list of them, or a table split = path(s); "-" is standard input, of "text" or "json" lines."""
    sample_by: Literal["line", "paragraph", "document"] = "document"
    """For "text": `document` is a whole file (special tokens cut it further); `paragraph` ends at an empty line."""

    @rule("data_files", "dataset_name")
    def standard_input_is_text(data_files: object, dataset_name: str) -> str | None:
        """Refuse standard input where a format needs whole files, and beside other files."""
        names = [] if data_files is None else list(_file_names(data_files))
        if STANDARD_INPUT not in names:
            return None
        if dataset_name not in ("text", "json"):
            return f'"-" is standard input, which cannot be {dataset_name}; use dataset_name = "text" or "json"'
        return None if len(names) == 1 else '"-" is standard input and stands alone; leave out the other files'


class PrepareCorpusSection(OneSplitSection):
    """[data] of transformerlm-prepare-data: the text to turn into tokens."""

    tokenizer: TokenizerFilesSection
    """The tokenizer to use."""


def _plain_suffix(name: str) -> str:
    """Return a file name's suffix, that of a compression aside."""
    path = PurePath(name)
    return path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix


def _file_names(data_files: object) -> Iterator[str]:
    """Yield every path or glob; an empty list or table counts as an empty name."""
    if isinstance(data_files, Mapping) and data_files:
        yield from (name for files in data_files.values() for name in _file_names(files))
    else:
        yield from (data_files,) if isinstance(data_files, str) else data_files or ("",)


def missing_split(split: str, data_files: object) -> str | None:
    """Answer what is wrong with a split that `data_files` do not offer, or None."""
    if data_files is None:
        return None  # the dataset knows its own splits
    named = tuple(data_files) if isinstance(data_files, Mapping) else ("train",)
    base = split.partition("[")[0]
    if base in named:
        return None
    if isinstance(data_files, Mapping):
        return f'data_files has no "{base}", only {", ".join(named)}; add it or use one of them'
    return (
        f'data_files without split names are all "train", so there is no "{base}"; write data_files = '
        f'{{ train = "...", {base} = "..." }}, or slice with streaming = false: "train[95%:]"'
    )
