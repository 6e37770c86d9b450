"""The compiled backend gives the ids, the merges and the errors of the Python one."""

import os
import pickle
import random
import shutil
import string
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.tokenizer import Tokenizer, Vocabulary, backend, fast_encoding, fast_learning, train_bpe
from transformerlm.tokenizer.blocks import BLOCK_BYTES
from transformerlm.tokenizer.kernels.merging import WINDOW_BYTES
from transformerlm.tokenizer.learning import learn_merges
from transformerlm.tokenizer.trainer import BpeSettings, BpeTrainer
from transformerlm.utils import jit

SPECIALS = ["<|endoftext|>", "<|end|>", "<|end|><|end|>", "<| two words |>", ">x|>"]
PIECES = st.sampled_from(
    ["the", " fox", "über", "12", "==", "'", "'ll", "日本", " ", "\n", "\u3000", "😀", *SPECIALS, "<|end", "|>", "x|>"]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=40).map("".join)


@pytest.fixture(scope="module")
def fast(tokenizer) -> Tokenizer:
    return Tokenizer(tokenizer.vocabulary, "numba")


@pytest.fixture(scope="module")
def slow(tokenizer) -> Tokenizer:
    return Tokenizer(tokenizer.vocabulary, "python")


@settings(deadline=None, max_examples=500)
@given(text=TEXTS, allowed=st.sampled_from(["all", "none", {"<|end|>"}]))
def test_ids_are_equal(fast, slow, text, allowed):
    ids = slow.encode(text, allowed)
    assert fast.encode(text, allowed) == ids
    assert fast.encode_array(text, allowed).tolist() == ids
    assert fast.decode(np.array(ids, np.int64)) == slow.decode(ids) == text


@settings(deadline=None, max_examples=100)
@given(text=TEXTS, block_bytes=st.integers(4, 40))
def test_streams_give_the_ids_of_the_whole(fast, slow, text, block_bytes):
    assert list(fast.encode_iterable(text, "all", block_bytes)) == slow.encode(text)


def random_words(seed: int, count: int) -> str:
    rng = random.Random(seed)
    alphabet = string.ascii_letters + "éß日'"
    return "".join(
        rng.choice([" ", "", "\n"]) + "".join(rng.choices(alphabet, k=rng.randint(1, 40))) for _ in range(count)
    )


def test_a_cache_that_grows_and_starts_over_changes_nothing(fast, slow, monkeypatch):
    monkeypatch.setattr(fast_encoding, "FIRST_CACHED_WORDS", 2**11)
    monkeypatch.setattr(fast_encoding, "MOST_CACHED_WORDS", 2**13)
    rooms = []
    make_room = fast_encoding._Workspace.make_room
    monkeypatch.setattr(fast_encoding._Workspace, "make_room", lambda self: (rooms.append(1), make_room(self)))
    text = random_words(1, 60_000)
    tokenizer = Tokenizer(fast.vocabulary, "numba")
    assert tokenizer.encode_array(text + text).tolist() == slow.encode(text + text)
    assert len(rooms) > 4, "the text was meant to fill the cache again and again"
    prompts = [random_words(seed, 30) for seed in range(300)]
    assert tokenizer.encode_batch(prompts) == slow.encode_batch(prompts)


def test_vocabularies_beyond_16_bits_are_served(slow):
    merges = [(bytes([a]), bytes([b])) for a in range(256) for b in range(255)]
    vocabulary = Vocabulary.from_merges(merges, ["<|endoftext|>"])
    wide, reference = Tokenizer(vocabulary, "numba"), Tokenizer(vocabulary, "python")
    text = random_words(2, 5000) + "<|endoftext|>"
    assert wide.id_dtype == np.uint32
    assert wide.encode(text) == reference.encode(text)
    assert wide.decode(wide.encode_array(text)) == text


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("chosen", ["python", "numba"])
def test_files_are_encoded_in_order_by_any_number_of_threads(tokenizer, slow, sample_text, tmp_path, chosen, threads):
    rng = random.Random(threads)
    text = "".join(rng.choice([sample_text, "<|endoftext|>", "x" * 9, " \n"]) for _ in range(5000))
    assert len(text.encode()) > BLOCK_BYTES
    (tmp_path / "corpus.txt").write_bytes(text.encode())
    expected = slow.encode(text)
    subject, output = Tokenizer(tokenizer.vocabulary, chosen), tmp_path / "corpus.bin"
    assert subject.encode_file(tmp_path / "corpus.txt", threads=threads).tolist() == expected
    mapped = subject.encode_file(tmp_path / "corpus.txt", threads=threads, output=output)
    assert isinstance(mapped, np.memmap)
    assert np.fromfile(output, "<u2").tolist() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.bin", "corpus.txt"]


@pytest.mark.parametrize("chosen", ["python", "numba"])
@pytest.mark.parametrize("place", [0, 1000, BLOCK_BYTES + 77])
def test_a_wrong_byte_in_a_file_is_named_and_nothing_is_left(tokenizer, tmp_path, chosen, place):
    data = b"the fox " * (BLOCK_BYTES // 4)
    (tmp_path / "wrong.txt").write_bytes(data[:place] + b"\xff" + data[place:])
    subject = Tokenizer(tokenizer.vocabulary, chosen)
    with pytest.raises(ValueError, match=rf"wrong.txt: byte {place} is not UTF-8 .*; convert the file to UTF-8"):
        subject.encode_file(tmp_path / "wrong.txt", output=tmp_path / "out.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.txt"]
    trainer = BpeTrainer(BpeSettings(260, [], backend=chosen, threads=2))
    with pytest.raises(ValueError, match=rf"wrong.txt: byte {place} is not UTF-8 .*; convert"):
        trainer.train_on_files([tmp_path / "wrong.txt"])


def test_threads_share_a_tokenizer(fast, slow):
    texts = [random_words(seed, 2000) for seed in range(8)]
    expected, found = [slow.encode(text) for text in texts], {}

    def work(index):
        found[index] = [fast.encode(texts[index]) for _ in range(20)]

    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(texts))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(found[index] == [expected[index]] * 20 for index in range(len(texts)))


@settings(deadline=None, max_examples=60)
@given(
    documents=st.lists(st.text("abAé日' .\n", max_size=80), min_size=1, max_size=8).filter(lambda texts: any(texts)),
    num_merges=st.integers(0, 60),
)
def test_merges_are_equal(documents, num_merges):
    reports = []
    for chosen in ("python", "numba"):
        trainer = BpeTrainer(BpeSettings(256 + num_merges, [], backend=chosen, threads=2))
        try:
            vocabulary = trainer.train(documents).vocabulary
        except ValueError as error:
            vocabulary = str(error)
        report = trainer.report
        reports.append((vocabulary, report.bytes_read, report.words, report.distinct_words, report.tokens))
    assert reports[0] == reports[1]


def test_merges_are_equal_when_every_table_has_to_grow(monkeypatch):
    monkeypatch.setattr(fast_learning, "FIRST_SLOTS", 4)
    monkeypatch.setattr(fast_learning, "MERGES_PER_CALL", 100)
    grown = []

    def learn_and_grow(self):
        for number in learn(self):
            if len(grown) < 3:
                grown.append(self._grow())
            yield number

    learn = fast_learning.MergeLearner.learn
    monkeypatch.setattr(fast_learning.MergeLearner, "learn", learn_and_grow)
    words = [random_words(seed, 500) for seed in range(5)]
    corpus = [*words, words[0] * 3, "a" * 5000, "ab" * 3000, " " * 400, "x<|endoftext|>y" * 20]
    trained = [
        BpeTrainer(BpeSettings(1200, ["<|endoftext|>"], backend=chosen, threads=3)).train(corpus).vocabulary
        for chosen in ("python", "numba")
    ]
    assert trained[0] == trained[1]
    assert len(grown) == 3


def test_counts_beyond_32_bits_are_kept():
    fast_learning.prepare_training()
    counts = {"ab": 2**40 + 1, "bc": 2**40, "cd": 2**33, "abcd": 7}
    learner = fast_learning.MergeLearner(fast_learning.lay_out_counts(counts), 4)
    list(learner.learn())
    assert learner.merges() == [merge for merge, _ in learn_merges(counts, 4)]


@pytest.mark.parametrize("pattern", ["cl100k", r"\w+|\W+"])
def test_other_patterns_are_learned_from_python_counts(pattern, sample_text, monkeypatch):
    monkeypatch.setattr("transformerlm.tokenizer.trainer.WORTH_LOADING_BYTES", 0)
    monkeypatch.setattr("transformerlm.tokenizer.trainer.WORTH_COMPILING_BYTES", 0)
    automatic = BpeTrainer(BpeSettings(500, [], pattern, "auto")).train([sample_text])
    assert automatic.vocabulary == BpeTrainer(BpeSettings(500, [], pattern, "python")).train([sample_text]).vocabulary
    with pytest.raises(ValueError, match="knows the pattern 'gpt2' only"):
        BpeTrainer(BpeSettings(500, [], pattern, "numba"))


# --- which backend


def test_a_short_prompt_does_not_load_numba(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    program = (
        "import sys; from transformerlm.tokenizer import Tokenizer\n"
        f"tokenizer = Tokenizer.load({str(tmp_path)!r})\n"
        "tokenizer.decode(tokenizer.encode('the little fox ' * 1000))\n"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_enough_text_in_small_pieces_loads_the_kernels_that_were_compiled_before(fast, monkeypatch):
    fast.encode("compile them")
    monkeypatch.setattr(backend, "WORTH_LOADING_BYTES", 1000)
    automatic = Tokenizer(fast.vocabulary)
    for _ in range(99):
        automatic.encode("ten bytes.")
    assert automatic._encoders._encoder is None
    automatic.encode("ten bytes.")
    assert automatic._encoders._encoder is not None


def test_kernels_that_must_be_compiled_first_wait_for_more(fast, monkeypatch):
    monkeypatch.setattr(backend, "WORTH_LOADING_BYTES", 0)
    monkeypatch.setattr(fast_encoding, "encoding_is_compiled", lambda _: False)
    automatic = Tokenizer(fast.vocabulary)
    automatic.encode("text")
    assert automatic._encoders._encoder is None
    monkeypatch.setattr(backend, "WORTH_COMPILING_BYTES", 0)
    automatic = Tokenizer(fast.vocabulary)
    automatic.encode("text")
    assert automatic._encoders._encoder is not None


def test_unknown_backends_are_refused(tokenizer):
    with pytest.raises(ValueError, match="backend = 'rust' is none of 'auto', 'numba', 'python'"):
        Tokenizer(tokenizer.vocabulary, "rust")


def test_without_numba_python_serves_and_numba_is_refused(tokenizer, tmp_path, sample_text):
    tokenizer.save(tmp_path)
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')")
    program = (
        "from transformerlm.tokenizer import Tokenizer, backend, train_bpe, trainer\n"
        "backend.WORTH_LOADING_BYTES = trainer.WORTH_LOADING_BYTES = 0\n"
        f"print(Tokenizer.load({str(tmp_path)!r}).encode('the fox'), train_bpe(['aa'], 257, []).vocab_size)\n"
        "try:\n"
        f"    Tokenizer.load({str(tmp_path)!r}, 'numba').encode('the fox')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    output = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert output.stdout.splitlines() == [
        f"{tokenizer.encode('the fox')} 257",
        "backend = 'numba' needs numba (no numba here); install it or use 'auto'",
    ]


def test_a_pickled_tokenizer_keeps_its_backend(fast):
    copy = pickle.loads(pickle.dumps(fast))
    assert copy.backend == "numba"
    assert copy.encode("the fox") == fast.encode("the fox")


# --- texts that make others slow


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["a", " ", "=", "😀", "\n", "random"])
def test_ten_megabytes_of_one_thing_are_encoded_in_seconds(piece, sample_text):
    rng = random.Random(0)
    text = (
        "".join(rng.choices(string.ascii_lowercase, k=10**7))
        if piece == "random"
        else piece * (10**7 // len(piece.encode()))
    )
    learned = train_bpe([sample_text, "a" * 64, " " * 64, "=" * 64, "😀" * 16, "abcdefgh"], 700, [])
    tokenizer = Tokenizer(learned.vocabulary, "numba")
    tokenizer.encode("x")
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == text
    part = text[: 3 * WINDOW_BYTES]
    assert tokenizer.encode(part) == Tokenizer(learned.vocabulary, "python").encode(part)


@pytest.mark.slow
def test_the_kernels_are_compiled_once_for_all_processes(tmp_path):
    program = (
        "from transformerlm.utils.jit import kernel, prepare\n"
        "@kernel\ndef twice(number):\n    return 2 * number\n"
        "prepare('a test', lambda: twice(21))\n"
    )
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | {"TRANSFORMERLM_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(tmp_path / "program.py")]
    together = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    notices = [process.communicate()[1] for process in together]
    assert sorted(notices) == ["", "", "compiling kernels for a test, once on this machine ...\n"]
    later = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert later.stderr == ""


def test_a_second_checkout_does_not_take_itself_for_compiled(tmp_path):
    """numba compiles anew for sources that lie elsewhere or were written again, so the notice has to come again."""

    def cache_folder(checkout: str) -> str:
        environment = os.environ | {"TRANSFORMERLM_CACHE_DIR": str(tmp_path / "cache")}
        program = "import jit; print(jit.CACHE_FOLDER)"
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, env=environment, cwd=tmp_path / checkout, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    for checkout in ("one", "two"):
        (tmp_path / checkout).mkdir()
        shutil.copy2(jit.__file__, tmp_path / checkout / "jit.py")
    first = cache_folder("one")
    assert cache_folder("one") == first
    assert cache_folder("two") != first
    os.utime(tmp_path / "one/jit.py", (1, 1))
    assert cache_folder("one") != first


def test_the_cache_lies_elsewhere_when_its_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    program = "from transformerlm.utils.jit import CACHE_FOLDER; print(CACHE_FOLDER)"
    environment = os.environ | {
        "TRANSFORMERLM_CACHE_DIR": "file/no",
        "XDG_CACHE_HOME": "file",
        "PYTHONPATH": os.getcwd(),
    }
    output = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "transformerlm-kernels-" in output.stdout
