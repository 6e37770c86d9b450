"""What a run recorded about one of its checkpoints, for the model card; nothing is computed anew."""

import json
import re
from pathlib import Path
from typing import Any

import tomli

from cli.summary import SUMMARY_FILE
from transformerlm.interop.model_card import HeldOutLine, RunFigures

METRICS_FILE, CONFIG_FILE = "metrics.jsonl", "config.toml"


def read_figures(checkpoint: Path | None) -> RunFigures:
    """Gather the figures of a checkpoint folder inside a run; empty where there is no run or it says nothing."""
    step = re.fullmatch(r"step_(\d+)", checkpoint.name) if checkpoint is not None else None
    if checkpoint is None or step is None or checkpoint.parent.name != "checkpoints":
        return RunFigures()
    run, steps = checkpoint.parent.parent, int(step[1])
    records = [record for record in _read_records(run / METRICS_FILE) if record.get("step", 0) <= steps]
    trained = next((record for record in reversed(records) if "loss" in record), {})
    validated = next((record for record in reversed(records) if "validation_loss" in record), {})
    return RunFigures(
        run=run.name,
        step=steps,
        tokens_seen=trained.get("tokens_seen") if trained.get("step") == steps else None,
        validation_loss=validated.get("validation_loss"),
        validation_step=validated.get("step"),
        dataset=_read_dataset(run / CONFIG_FILE),
        held_out=tuple(_read_held_out(run, steps)),
    )


def _read_records(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a line cut short by a crash is passed over."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _read_dataset(path: Path) -> str | None:
    if not path.is_file():
        return None
    data = tomli.loads(path.read_text(encoding="utf-8")).get("data", {})
    return data.get("dataset_name") or data.get("megatron_train_prefix")


def _read_held_out(run: Path, steps: int) -> list[HeldOutLine]:
    """Read the closing table, which belongs to the last step only."""
    is_last = steps == max((record.get("step", 0) for record in _read_records(run / METRICS_FILE)), default=-1)
    if not is_last or not (run / SUMMARY_FILE).is_file():
        return []
    lines = json.loads((run / SUMMARY_FILE).read_text(encoding="utf-8")).get("held_out", [])
    return [
        HeldOutLine(each["name"], each["nats_per_token"], each["bits_per_byte"], each["is_bound"]) for each in lines
    ]
