"""Check the files that a configuration names, before anything heavy starts.

The schema cannot: a configuration may be written on one machine for another.
"""

import json
from collections.abc import Iterator, Mapping
from glob import has_magic, iglob
from pathlib import Path
from typing import Any

from config.roots import (
    BenchInferConfig,
    BenchTokenizerConfig,
    EvalConfig,
    ExportConfig,
    ImportConfig,
    InferConfig,
    PrepareDataConfig,
    SweepConfig,
    TrainConfig,
    TrainTokenizerConfig,
)
from config.section import Section
from config.sections.data import STANDARD_INPUT, DataSection, MegatronSection, TokenizerFilesSection
from config.sections.evaluation import EvaluationCorpusSection
from config.sections.tokenizer import END_OF_TEXT, MASK
from config.sections.tokenizer_benchmark import TokenizerBenchmarkSection

OF_NEWEST_RUN = ("latest", "best")  # of checkpointing.resume_from


def check_files(config: Section) -> list[str]:
    """Return a line for each file that is missing or does not fit, as `section.key: what is wrong and what to do`."""
    match config:
        case TrainConfig():
            weights = [*_check_resume(config), *_check_initial_weights(config.training.init_from)]
            return [*_check_tokenizer(config), *_check_corpus(config.data), *weights]
        case PrepareDataConfig(data=data, prepare=prepare):
            folder = _check_output_folder("prepare.output_dir", prepare.output_dir)
            return [*_check_tokenizer_files(data.tokenizer), *_check_data_files(data.data_files), *folder]
        case TrainTokenizerConfig(data=data, tokenizer=tokenizer):
            files = None if data.data_files == STANDARD_INPUT else data.data_files
            folder = _check_output_folder("tokenizer.output_dir", tokenizer.output_dir)
            return [*_check_data_files(files), *folder]
        case EvalConfig(data=data, choices=choices):
            questions = [] if choices is None or not choices.file else _check_questions(choices.file)
            return [*([] if data is None else _check_held_out(data)), *questions]
        case BenchTokenizerConfig(benchmark=benchmark):
            return list(_check_benchmark(benchmark))
        case InferConfig() | BenchInferConfig() | SweepConfig() | ExportConfig() if config.checkpoint is not None:
            return list(_check_checkpoint(config.checkpoint.path))
        case ImportConfig(importing=importing) if not Path(importing.path).exists():
            where = _beside(importing.path)
            return [f"importing.path: no such file or folder: {importing.path}{where}; correct the path"]
    return []


def _check_tokenizer(config: TrainConfig) -> Iterator[str]:
    missing = list(_check_tokenizer_files(config.data.tokenizer))
    yield from missing
    if not missing:
        yield from _check_vocabulary(config, config.data.tokenizer)


def _check_tokenizer_files(files: TokenizerFilesSection) -> Iterator[str]:
    for key, path in files:
        if not Path(path).is_file():
            yield (
                f"data.tokenizer.{key}: no such file: {path}{_beside(path)}; make one with "
                "transformerlm-train-tokenizer, or correct the path"
            )


def _check_vocabulary(config: TrainConfig, files: TokenizerFilesSection) -> Iterator[str]:
    """Compare the vocabulary with the model and the objective; the tokenizer itself checks all the rest."""
    vocabulary, specials = _read_json(files.vocab_path), _read_json(files.special_tokens_path)
    if not isinstance(vocabulary, dict):
        yield f"data.tokenizer.vocab_path: {files.vocab_path} is not a JSON table of tokens and ids; train it again"
        return
    if len(vocabulary) != config.model.vocab_size:
        yield (
            f"model.vocab_size: {config.model.vocab_size}, but the tokenizer {files.vocab_path} has "
            f"{len(vocabulary)} tokens; set model.vocab_size = {len(vocabulary)}"
        )
    if isinstance(specials, dict):
        specials = specials.get("special_tokens")
    if not isinstance(specials, list):
        yield f"data.tokenizer.special_tokens_path: {files.special_tokens_path} lists no tokens; train it again"
        return
    needed = {END_OF_TEXT: "training"}
    if config.objective.name != "autoregressive":
        needed[MASK] = f'objective.name = "{config.objective.name}"'
    for token, reason in needed.items():
        if token not in specials:
            yield (
                f"data.tokenizer.special_tokens_path: {files.special_tokens_path} has no {token}, which {reason} "
                f"needs; train a tokenizer with it in tokenizer.special_tokens"
            )


def _check_corpus(data: DataSection) -> Iterator[str]:
    if not isinstance(data, MegatronSection):
        yield from _check_data_files(data.data_files)
        return
    yield from _check_prefix("megatron_train_prefix", data.megatron_train_prefix)
    yield from _check_prefix("megatron_val_prefix", data.megatron_val_prefix)


def _check_prefix(key: str, prefix: str) -> Iterator[str]:
    for suffix in (".bin", ".idx"):
        if not Path(prefix + suffix).is_file():
            yield f"data.{key}: no such file: {prefix}{suffix}{_beside(prefix + suffix)}; correct the path"


def _check_data_files(data_files: str | tuple[str, ...] | Mapping[str, Any] | None, key: str = "") -> Iterator[str]:
    """Report each path or glob that finds no file, and files without a byte. Addresses (`hf://...`) are not checked."""
    if isinstance(data_files, Mapping):
        for split, files in data_files.items():
            yield from _check_data_files(files, f".{split}")
        return
    for pattern in (data_files,) if isinstance(data_files, str) else data_files or ():
        if "://" in pattern:
            continue
        found = [Path(each) for each in iglob(pattern, recursive=True)]
        files = [each for each in found if each.is_file()]
        if not files:
            what = "is a folder" if found and not has_magic(pattern) else "finds no file"
            remedy = f'write "{pattern.rstrip("/")}/*"' if what == "is a folder" else "correct the path"
            yield f'data.data_files{key}: "{pattern}" {what}{_beside(pattern)}; {remedy}'
        elif not any(each.stat().st_size for each in files):
            yield f'data.data_files{key}: "{pattern}" is empty, there is nothing to learn from; name files with text'


def _check_resume(config: TrainConfig) -> Iterator[str]:
    wanted, runs = config.checkpointing.resume_from, Path(config.logging.runs_path)
    named = config.logging.run_name
    newest = runs / named if named and (runs / named).exists() else runs / "latest"
    path = newest if wanted in OF_NEWEST_RUN else Path(wanted)
    if wanted and "://" not in wanted and not path.exists():
        yield f'checkpointing.resume_from: no run or checkpoint at {path}; set it to "" to start anew'


def _check_initial_weights(path: str) -> Iterator[str]:
    if path and not Path(path).exists():
        yield f'training.init_from: no run or checkpoint at {path}{_beside(path)}; correct the path, or set it to ""'


def _check_checkpoint(path: str) -> Iterator[str]:
    if not Path(path).exists():
        yield (
            f"checkpoint.path: no run or checkpoint at {path}{_beside(path)}; train one first "
            "(transformerlm-train --config config/resources/train.toml), or correct the path"
        )


def _check_held_out(data: EvaluationCorpusSection) -> Iterator[str]:
    yield from _check_data_files(data.data_files)
    if data.megatron_prefix:
        yield from _check_prefix("megatron_prefix", data.megatron_prefix)
    if data.tokenizer is not None:
        yield from _check_tokenizer_files(data.tokenizer)


def _check_questions(path: str) -> Iterator[str]:
    if not Path(path).is_file():
        yield f"choices.file: no such file: {path}{_beside(path)}; correct the path, or leave it out"


def _check_benchmark(benchmark: TokenizerBenchmarkSection) -> Iterator[str]:
    if benchmark.text and not Path(benchmark.text).is_file():
        yield f"benchmark.text: no such file: {benchmark.text}{_beside(benchmark.text)}; correct the path"
    if benchmark.tokenizer and not (Path(benchmark.tokenizer) / "vocab.json").is_file():
        yield (
            f"benchmark.tokenizer: no vocab.json in {benchmark.tokenizer}{_beside(benchmark.tokenizer)}; correct the "
            'path, or set it to "" to learn a vocabulary from the text'
        )


def _check_output_folder(key: str, path: str) -> Iterator[str]:
    if Path(path).exists() and not Path(path).is_dir():
        yield f"{key}: {path} is a file; choose a folder"


def _read_json(path: str) -> Any:
    """Return what a JSON file holds, None if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        return None


def _beside(path: str) -> str:
    """Return where a relative path was looked for: the most frequent surprise."""
    return "" if Path(path).is_absolute() or "://" in path else f" below {Path.cwd()}"
