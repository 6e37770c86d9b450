"""Which run a training command continues, and from which checkpoint: decided on rank 0, the same on every rank."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cli.build import build_shape
from cli.initial_weights import find_initial_weights
from cli.output import say
from config.io import dump_toml
from config.roots import TrainConfig
from trainkit.checkpointing.finding import find_checkpoint, newest_intact, verify_checkpoint
from trainkit.checkpointing.manager import BEST, LATEST, CheckpointManager, is_checkpoint_name
from trainkit.checkpointing.remote import fetch_checkpoint, is_url
from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects
from trainkit.errors import CheckpointError
from trainkit.run_folder import open_run_folder
from transformerlm.checkpoint_description import TOKENIZER_FOLDER, read_description
from transformerlm.tokenizer import Tokenizer

CONFIG_FILE = "config.toml"


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where a run lives, and the checkpoint to continue from, if any."""

    folder: Path
    resumed_from: Path | None = None
    is_reopened: bool = False
    """The folder may hold files of an earlier session."""


def open_run(world: World, config: TrainConfig, tokenizer: Tokenizer) -> RunPlace:
    """Create the run's folder, or reopen the one to continue; every rank must call this.

    Raises CheckpointError or ValueError, on every rank, if what is to be continued is not there or does not fit.
    """
    place, error = None, None
    if world.is_first:
        try:
            place = choose_place(config)
            if place.resumed_from is not None:
                check_fits(place.resumed_from, config, tokenizer)
            elif config.training.init_from:  # now, while there is no new folder that would stay behind
                find_initial_weights(build_shape(config.model, config.objective), config.training.init_from, tokenizer)
            open_run_folder(place.folder.parent, place.folder.name, place.is_reopened)
        except (ValueError, OSError) as problem:
            error = problem
    place, error = gather_objects((place, error), world)[0]
    if error is not None:
        raise error
    return place


def choose_place(config: TrainConfig) -> RunPlace:
    """Decide by resume_from, else by auto_resume, else for a new run."""
    wanted = config.checkpointing.resume_from
    if is_url(wanted):
        return fetch_place(wanted, config)
    if wanted:
        checkpoint = find_wanted(wanted, config)
        verify_checkpoint(checkpoint)
        if checkpoint.parent.name == "checkpoints":
            return RunPlace(checkpoint.parent.parent, checkpoint, is_reopened=True)
        return RunPlace(name_new_run(config), checkpoint)
    return find_same_run(config) if config.checkpointing.auto_resume else RunPlace(name_new_run(config))


def find_wanted(wanted: str, config: TrainConfig) -> Path:
    """Return the checkpoint that resume_from names on this machine; raises CheckpointError if it is not there."""
    runs, prefer = Path(config.logging.runs_path), wanted if wanted in (LATEST, BEST) else LATEST
    path = Path(wanted)
    if wanted in (LATEST, BEST):
        own = runs / config.logging.run_name
        path = own if config.logging.run_name and own.exists() else runs / LATEST
    return shorten(find_checkpoint(path, prefer))


def fetch_place(url: str, config: TrainConfig) -> RunPlace:
    """Download what a URL names into a run folder of the same name, and continue there."""
    names = [part for part in url.rstrip("/").split("/") if part not in (LATEST, BEST) and not is_checkpoint_name(part)]
    folder = Path(config.logging.runs_path) / (config.logging.run_name or names[-1])
    checkpoint = fetch_checkpoint(url, folder / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"checkpointing.resume_from: {url} holds no complete checkpoint")
    return RunPlace(folder, checkpoint, is_reopened=True)


def find_same_run(config: TrainConfig) -> RunPlace:
    """Continue the run of this name, or of this configuration, from its newest intact checkpoint, or start it."""
    folder = (
        Path(config.logging.runs_path) / config.logging.run_name if config.logging.run_name else same_config(config)
    )
    if folder is None:
        return RunPlace(name_new_run(config))
    checkpoints = folder / "checkpoints"
    checkpoint = newest_usable(checkpoints)
    if checkpoint is None and config.checkpointing.remote_url:
        checkpoint = fetch_checkpoint(f"{config.checkpointing.remote_url}/{folder.name}", checkpoints)
    return RunPlace(folder, checkpoint, is_reopened=True)


def newest_usable(checkpoints: Path) -> Path | None:
    """Return the latest checkpoint or, with a word about what is wrong with that, the newest intact one.

    Raises CheckpointError if there are checkpoints and none is intact.
    """
    manager = CheckpointManager(checkpoints)
    if not manager.list_checkpoints() and not list(checkpoints.glob(".step_*.replaced")):
        return None
    latest = find_checkpoint(checkpoints)
    try:
        verify_checkpoint(latest)
    except CheckpointError as error:
        latest = newest_intact(checkpoints, other_than=latest.name)
        if latest is None:
            raise
        say(f"auto_resume: {error}; continuing from that one")
    return latest


def same_config(config: TrainConfig) -> Path | None:
    """Return the newest run that was started with exactly this configuration."""
    own = describe_start(config)
    found = Path(config.logging.runs_path).glob(f"*/{CONFIG_FILE}")
    same = [path for path in found if not path.parent.is_symlink() and path.read_text(encoding="utf-8") == own]
    return max(same, key=lambda path: path.stat().st_mtime).parent if same else None


def describe_start(config: TrainConfig) -> str:
    """Return the configuration as that of a new run: training it again repeats the run, however often resumed."""
    started_anew = config.checkpointing.model_copy(update={"resume_from": ""})
    return dump_toml(config.model_copy(update={"checkpointing": started_anew}))


def name_new_run(config: TrainConfig) -> Path:
    """Return the folder of a new run."""
    name = config.logging.run_name or f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config.objective.name}"
    return Path(config.logging.runs_path) / name


def shorten(folder: Path) -> Path:
    """Return the real folder behind links, relative to the working folder where it is below it."""
    folder = folder.resolve()
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def check_fits(folder: Path, config: TrainConfig, tokenizer: Tokenizer) -> None:
    """Raise ValueError if a checkpoint learned something else than this run is to learn."""
    _, objective = read_description(folder)
    if objective != config.objective.name:
        raise ValueError(
            f'checkpointing.resume_from: {folder} was trained with objective.name = "{objective}", and this run has '
            f'"{config.objective.name}"; resume with the run\'s own config.toml, or start a new run'
        )
    if Tokenizer.load(folder / TOKENIZER_FOLDER) != tokenizer:
        raise ValueError(
            f"checkpointing.resume_from: {folder} was trained with another tokenizer; point [data.tokenizer] at "
            f"{folder / TOKENIZER_FOLDER}, or start a new run"
        )
