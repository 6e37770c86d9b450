"""From [data] to batches.

records -> shuffled -> encoded -> packed or padded rows -> batches -> prefetched       trainkit/data draws it
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cli.corpora import Corpus, Reading, open_corpus
from cli.output import remark
from cli.prepared import open_tokens
from cli.tokens import encode_text
from config.sections.data import DataSection, DocumentsSection, MegatronSection, RowsSection
from trainkit.data.documents import Shard
from trainkit.data.encoding import BadRecords, Encoded
from trainkit.data.indexed_rows import IndexedRows, Order
from trainkit.data.packing import Batches, PackedRows, PaddedRows, RowLayout
from trainkit.data.prefetch import Prefetched
from trainkit.data.shuffling import Shuffled
from trainkit.protocols import BatchSource
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


def build_train_batches(data: DataSection, tokenizer: Tokenizer, shape: RowShape, shard: Shard) -> Batches:
    """Return one rank's endless, shuffled training batches."""
    return _build_batches(data, tokenizer, shape, shard, is_training=True)


def build_val_batches(data: DataSection, tokenizer: Tokenizer, shape: RowShape, shard: Shard) -> Batches:
    """Return one rank's validation batches from the beginning, in order, once."""
    return _build_batches(data, tokenizer, shape, shard, is_training=False)


@contextmanager
def prefetched(batches: Batches, data: DataSection, *, pin_memory: bool) -> Iterator[BatchSource]:
    """Have the batches made in the background for the length of the block, if [data] wants that."""
    if not data.prefetch_batches:
        yield batches
        return
    source = Prefetched(batches, data.prefetch_batches, pin_memory)
    try:
        yield source
    finally:
        source.close()


def _build_batches(
    data: DataSection, tokenizer: Tokenizer, shape: RowShape, shard: Shard, *, is_training: bool
) -> Batches:
    rows = (
        _index_rows(data, tokenizer, shape, shard, is_training)
        if isinstance(data, MegatronSection)
        else _stream_rows(data, tokenizer, shape, shard, is_training)
    )
    return Batches(rows, shape.batch_size, _describe_pipeline(data, shape))


def _stream_rows(
    data: DocumentsSection, tokenizer: Tokenizer, shape: RowShape, shard: Shard, is_training: bool
) -> PackedRows | PaddedRows:
    arrays = _encode(data, tokenizer, _shuffle(data, shard, is_training))
    if isinstance(data, RowsSection):
        return PaddedRows(arrays, shape.row_length, data.pad_token_id)
    separator = tokenizer.end_of_text_id if data.mask_documents else None
    return PackedRows(arrays, RowLayout(shape.row_length, shape.lookahead, separator))


def _shuffle(data: DocumentsSection, shard: Shard, is_training: bool) -> Corpus:
    """Open the training split in random order, or the validation split as it is."""
    split = data.train_split if is_training else data.val_split
    is_shuffled = is_training and data.shuffle_buffer_size > 0
    seed = data.shuffle_seed if is_shuffled else None
    corpus = open_corpus(data, Reading(split, shard, is_training, data.streaming, seed))
    if corpus.is_shuffled or not is_shuffled:
        return corpus
    records = Shuffled(corpus.records, data.shuffle_buffer_size, data.shuffle_seed + shard.rank)
    return Corpus(records, corpus.decode, is_shuffled=True)


def _encode(data: DocumentsSection, tokenizer: Tokenizer, corpus: Corpus) -> Encoded:
    """Turn documents into ids: the end-of-text token opens each, and in a row of its own closes it."""
    end = np.asarray([tokenizer.end_of_text_id], dtype=tokenizer.id_dtype)
    closing = [end] if isinstance(data, RowsSection) else []

    def encode(payload: Any) -> np.ndarray:
        return np.concatenate([end, encode_text(tokenizer, corpus.decode(payload)), *closing])

    return Encoded(corpus.records, encode, BadRecords(data.on_bad_record, remark), data.num_workers)


def _index_rows(
    data: MegatronSection, tokenizer: Tokenizer, shape: RowShape, shard: Shard, is_training: bool
) -> IndexedRows:
    prefix = data.megatron_train_prefix if is_training else data.megatron_val_prefix
    dataset = open_tokens(prefix, tokenizer)
    separator = tokenizer.end_of_text_id if data.mask_documents else None
    layout = RowLayout(shape.row_length, shape.lookahead, separator)
    order = Order(shard, data.shuffle_seed if is_training else None, repeat=is_training)
    return IndexedRows(dataset, layout, order, prefix, tokenizer.vocab_size)


def _describe_pipeline(data: DataSection, shape: RowShape) -> str:
    """Name what decides what a position means: resuming under another name is refused."""
    if isinstance(data, MegatronSection):
        source = data.megatron_train_prefix
    else:
        way = "streamed" if data.streaming else "indexed"
        source = f"{data.dataset_name} {data.train_split}, {way}"
    return f"{data.pipeline_mode} rows of {shape.row_length} from {source}"
