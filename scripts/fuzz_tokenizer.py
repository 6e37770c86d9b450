"""Compare the compiled tokenizer with the Python one on random texts and corpora, and stop at the first difference.

    TRANSFORMERLM_CHECKED=1 uv run python scripts/fuzz_tokenizer.py --seconds 600
    TRANSFORMERLM_CHECKED=1 uv run python scripts/fuzz_tokenizer.py --texts data/corpora/*.txt

With TRANSFORMERLM_CHECKED=1 every access to memory is checked as well. A failure prints the seed that repeats it, or
the document.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from transformerlm.tokenizer import END_OF_TEXT, Tokenizer, Vocabulary
from transformerlm.tokenizer.kernels.merging import WINDOW_BYTES
from transformerlm.tokenizer.trainer import BpeSettings, BpeTrainer

SPECIALS = [END_OF_TEXT, "<|end|>", "<|end|><|end|>", "1 2"]
ALPHABETS = [
    "ab ",
    "aAsdtmlvre' \n",
    "abc 12.,!\n\t\r'\x00\x85\xa0",
    "éß日本語한국\u3000\u2003 ٣²\u0301😀",
    "".join(map(chr, range(256))),
]


VOCAB_SIZE = 32_768
"""Of the vocabulary that is learned from a given text."""


def random_text(rng: random.Random, longest: int) -> str:
    """Draw a text of one of several characters."""
    length = int(longest ** rng.random())
    kind = rng.randrange(len(ALPHABETS) + 3)
    if kind < len(ALPHABETS):
        return "".join(rng.choices(ALPHABETS[kind], k=length))
    if kind == len(ALPHABETS):  # any character there is
        codes = (rng.randrange(0x110000) for _ in range(length))
        return "".join(chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF)
    if kind == len(ALPHABETS) + 1 and rng.random() < 0.1:  # one word that is merged in several windows
        return "".join(rng.choices(rng.choice(["ab", "abcdefgh", "日本", "=-"]), k=rng.randrange(3 * WINDOW_BYTES)))
    if kind == len(ALPHABETS) + 1:  # long runs, so that words and blocks end anywhere
        return "".join(rng.choice(rng.choice(ALPHABETS)) * rng.randrange(200) for _ in range(1 + length // 100))
    words = ["".join(rng.choices("abcdefgh", k=rng.randrange(1, 30))) for _ in range(30)]
    return "".join(
        rng.choice([" ", " ", "'s ", END_OF_TEXT, "<|end|>", "\n"]) + rng.choice(words) for _ in range(length)
    )


def random_vocabulary(rng: random.Random) -> Vocabulary:
    """Learn merges from a random text, or invent them, so that they come in an order no training gives."""
    if rng.random() < 0.5:
        tokens, merges = [bytes([byte]) for byte in b"ab' \xc3\xa9\xe6"], []
        for _ in range(rng.randrange(60)):
            pair = (rng.choice(tokens), rng.choice(tokens))
            if pair not in merges and len(pair[0] + pair[1]) < 30:
                merges.append(pair)
                tokens.append(pair[0] + pair[1])
        rng.shuffle(merges)
        return Vocabulary.from_merges(merges, SPECIALS)
    return compare_training(rng)


def compare_training(rng: random.Random) -> Vocabulary:
    """Train with both backends on the same documents; returns what they agree on."""
    documents = ["ab", *(random_text(rng, 3000) for _ in range(rng.randrange(1, 6)))]
    size, vocabularies = 256 + len(SPECIALS) + rng.randrange(200), []
    for backend in ("python", "numba"):
        trainer = BpeTrainer(BpeSettings(size, SPECIALS, backend=backend, threads=rng.choice([1, 2])))
        try:
            vocabularies.append(trainer.train(documents).vocabulary)
        except ValueError as error:  # too little text for so many merges: both must say so, and how many there are
            vocabularies.append(str(error))
    if vocabularies[0] != vocabularies[1]:
        raise AssertionError(f"the trainers disagree about {documents!r}")
    agreed = vocabularies[0]
    return agreed if isinstance(agreed, Vocabulary) else Vocabulary.from_merges([], SPECIALS)


def compare_encoding(fast: Tokenizer, slow: Tokenizer, text: str, rng: random.Random) -> None:
    """Encode and decode with both; raises AssertionError if anything differs."""
    allowed = rng.choice(["all", "none", {"<|end|>"}])
    expected = slow.encode(text, allowed)
    cut = rng.randrange(len(text) + 1)
    found = {
        "encode": fast.encode(text, allowed),
        "encode_array": fast.encode_array(text, allowed).tolist(),
        "encode_iterable": list(fast.encode_iterable([text[:cut], text[cut:]], allowed, rng.choice([16, 300, 2**16]))),
    }
    for name, ids in found.items():
        if ids != expected:
            raise AssertionError(f"{name} differs, allowed_special = {allowed!r}, for {text!r}")
    if fast.decode(np.array(expected, np.uint32)) != text:
        raise AssertionError(f"decode differs for {text!r}")


def compare_corpus(path: Path) -> int:
    """Learn a vocabulary from a text, then encode each of its documents with both; returns the number of ids.

    Raises AssertionError naming the document that differs.
    """
    documents = path.read_bytes().decode().split(END_OF_TEXT)
    vocabulary = BpeTrainer(BpeSettings(VOCAB_SIZE, [END_OF_TEXT], backend="numba")).train(documents).vocabulary
    fast, slow = Tokenizer(vocabulary, "numba"), Tokenizer(vocabulary, "python")
    num_ids = 0
    for index, document in enumerate(tqdm(documents, path.name, unit="document", disable=None)):
        ids = fast.encode_array(document)
        num_ids += len(ids)
        if ids.tolist() != slow.encode(document):
            raise AssertionError(f"{path}: document {index} differs: {document[:200]!r} ...")
    whole = fast.encode_file(path, threads=2)
    if len(whole) != num_ids + len(documents) - 1:
        raise AssertionError(f"{path}: the file has {len(whole)} ids, its documents {num_ids}")
    if fast.decode(whole).encode() != path.read_bytes():
        raise AssertionError(f"{path}: decoding does not give the file back")
    return len(whole)


def main() -> int:
    """Run until the time is over or the texts are read; returns 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round has the next one")
    parser.add_argument("--texts", type=Path, nargs="+", help="compare these files, instead of random texts")
    options = parser.parse_args()
    if options.texts:
        for path in options.texts:
            try:
                print(f"{path.name}: no difference in {compare_corpus(path):,} ids")
            except (AssertionError, IndexError) as error:
                print(error, file=sys.stderr)
                return 1
        return 0
    end, seed, num_bytes = time.monotonic() + options.seconds, options.seed, 0
    with tqdm(unit="round", disable=None) as bar:
        while time.monotonic() < end:
            rng = random.Random(seed)
            try:
                vocabulary = random_vocabulary(rng)
                fast, slow = Tokenizer(vocabulary, "numba"), Tokenizer(vocabulary, "python")
                for _ in range(30):
                    text = random_text(rng, 20_000)
                    num_bytes += len(text.encode())
                    compare_encoding(fast, slow, text, rng)
            except (AssertionError, IndexError) as error:
                print(f"seed {seed}: {error}", file=sys.stderr)
                return 1
            seed += 1
            bar.update()
    print(f"no difference in {seed - options.seed} rounds, {num_bytes / 1e6:.1f} MB of text")
    return 0


if __name__ == "__main__":
    sys.exit(main())
