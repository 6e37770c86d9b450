"""What a tokenizer learns from, in portions that are worth a call of a kernel."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from transformerlm.tokenizer.blocks import BLOCK_BYTES, Block, block_of, file_blocks
from transformerlm.tokenizer.pretokenize import Pretokenizer, SpecialTokenFinder, encode_utf8


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents, or a part of one, behind each other."""

    block: Block
    ends: list[int]
    """Where each ends in the block."""
    num_documents: int
    source: str = ""
    """What to say before an error: the file's name."""

    def decode(self) -> Iterator[str]:
        """Yield the documents; raises ValueError if they are not UTF-8."""
        if len(self.ends) == 1:
            try:
                yield self.block.decode()
            except ValueError as error:
                raise ValueError(f"{self.source}{error}; convert it to UTF-8") from None
            return
        for begin, end in pairwise([0, *self.ends]):
            yield str(self.block.view[begin:end], "utf-8")


def pack_documents(documents: Iterable[str]) -> Iterator[Texts]:
    """Gather documents behind each other; raises ValueError for one with a lone surrogate."""
    gathered: list[bytes] = []
    num_bytes = 0
    for number, document in enumerate(documents, start=1):
        try:
            gathered.append(encode_utf8(document))
        except ValueError as error:
            raise ValueError(f"document {number}: {error}") from None
        num_bytes += len(gathered[-1])
        if num_bytes >= BLOCK_BYTES:
            yield _join(gathered)
            gathered, num_bytes = [], 0
    yield _join(gathered)


def read_files(paths: Iterable[Path], pretokenizer: Pretokenizer, specials: SpecialTokenFinder) -> Iterator[Texts]:
    """Read files block by block, each file a document; raises ValueError if one cannot be read."""
    for path in paths:
        for number, block in enumerate(file_blocks(path, pretokenizer, specials)):
            yield Texts(block, [block.size], num_documents=int(number == 0), source=f"{path}: ")


def _join(documents: Sequence[bytes]) -> Texts:
    return Texts(block_of(b"".join(documents)), list(accumulate(map(len, documents))), len(documents))
