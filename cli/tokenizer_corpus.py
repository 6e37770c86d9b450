"""From [data] to the text that a tokenizer learns from: files, standard input, or what cli/sources.py reads."""

import glob
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedIOBase
from itertools import islice
from pathlib import Path

from config.sections.data import STANDARD_INPUT, TokenizerCorpusSection
from trainkit.data.files import DAMAGED, is_compressed, open_decompressed
from transformerlm.synthetic.languages import LANGUAGES
from transformerlm.tokenizer import Tokenizer
from transformerlm.tokenizer.blocks import cut_blocks
from transformerlm.tokenizer.pretokenize import Pretokenizer, SpecialTokenFinder
from transformerlm.tokenizer.trainer import BpeTrainer


def learn(trainer: BpeTrainer, data: TokenizerCorpusSection) -> Tokenizer:
    """Train on the corpus. Whole files are read by the trainer itself, with all its threads."""
    files = whole_files(data)
    if files and not any(map(is_compressed, files)):
        return trainer.train_on_files(files)
    return trainer.train(read_documents(trainer, data))


def read_documents(trainer: BpeTrainer, data: TokenizerCorpusSection) -> Iterator[str]:
    """Yield the corpus piece by piece, in bounded memory; no pretoken reaches from one piece into the next."""
    if files := whole_files(data):
        for path in files:
            with open_decompressed(str(path)) as stream:
                yield from read_blocks(trainer, stream, str(path))
    elif data.data_files == STANDARD_INPUT:
        yield from islice(read_standard_input(trainer, data), data.max_documents)
    elif data.dataset_name in LANGUAGES:
        assert data.max_documents is not None, "the schema requires it"
        document = LANGUAGES[data.dataset_name].document
        yield from (document(data.split, index) for index in range(data.max_documents))
    else:
        from cli.corpora import read_texts

        yield from read_texts(data, data.split, data.max_documents)


def whole_files(data: TokenizerCorpusSection) -> list[Path]:
    """Return the files that are documents as they are, sorted and each once; none if the corpus is of another kind."""
    names = data.data_files[data.split] if isinstance(data.data_files, Mapping) else data.data_files
    patterns = (names,) if isinstance(names, str) else names or ()
    if data.dataset_name != "text" or data.sample_by != "document" or STANDARD_INPUT in patterns:
        return []
    if any("://" in pattern for pattern in patterns):  # `datasets` knows how to fetch these
        return []
    found = (Path(path) for pattern in patterns for path in sorted(glob.iglob(pattern, recursive=True)))
    return list(islice(dict.fromkeys(path for path in found if path.is_file()), data.max_documents))


def corpus_bytes(data: TokenizerCorpusSection) -> int | None:
    """Return the size of the corpus, None if it is not known before it is read."""
    files = whole_files(data)
    if not files or any(map(is_compressed, files)):
        return None
    return sum(path.stat().st_size for path in files)


def count_name(data: TokenizerCorpusSection) -> str | None:
    """Return what the trainer's report counts as documents, None if only blocks of a stream."""
    if data.sample_by == "document" and data.dataset_name == "text":
        return None if corpus_bytes(data) is None else "files"
    return "documents"


def read_standard_input(trainer: BpeTrainer, data: TokenizerCorpusSection) -> Iterator[str]:
    """Yield the documents that come in: JSON objects, lines, paragraphs, or all of it in blocks."""
    if sys.stdin.isatty():
        print("reading standard input; Ctrl-D ends it", file=sys.stderr)
    blocks = read_blocks(trainer, sys.stdin.buffer, "standard input")
    if data.dataset_name == "json":
        yield from read_json_lines(split_at(blocks, "\n"), data.text_field)
    elif data.sample_by == "document":
        yield from blocks
    else:
        yield from split_at(blocks, "\n" if data.sample_by == "line" else "\n\n")


def read_blocks(trainer: BpeTrainer, stream: BufferedIOBase, name: str) -> Iterator[str]:
    """Yield a UTF-8 stream in blocks that tear no pretoken and no special token; raises ValueError if it is no text."""
    settings = trainer.settings
    pretokenizer, specials = Pretokenizer(settings.pattern), SpecialTokenFinder(settings.special_tokens)
    try:
        # readinto1 reads once: readinto would read on until its buffer is full, deaf to Ctrl-C between two reads.
        for block in cut_blocks(stream.readinto1, pretokenizer, specials):
            yield block.decode()
    except DAMAGED as error:
        raise ValueError(f"data.data_files: {name} cannot be read to its end ({error}); fetch it again") from None
    except ValueError as error:
        raise ValueError(f"data.data_files: {name}: {error}; convert it to UTF-8") from None


def split_at(chunks: Iterable[str], separator: str) -> Iterator[str]:
    """Yield what stands between separators, without empty pieces."""
    rest = ""
    for chunk in chunks:
        *pieces, rest = (rest + chunk).split(separator)
        yield from filter(None, pieces)
    if rest:
        yield rest


def read_json_lines(lines: Iterable[str], field: str) -> Iterator[str]:
    """Yield a field of JSON objects, one per line; raises ValueError naming the line that holds none."""
    for number, line in enumerate(lines, start=1):
        try:
            text = json.loads(line)[field]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise ValueError(
                f'data.data_files: line {number} is no JSON object with a text "{field}"; see data.text_field'
            )
        yield text
