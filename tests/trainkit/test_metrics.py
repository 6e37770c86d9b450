"""What is documented is what is written."""

import json
import re
from pathlib import Path

import torch
from trainkit_workers import ToySource, make_settings, make_trainer, toy_objective

import trainkit
from trainkit.distributed.parallel import World
from trainkit.evaluation import Validation
from trainkit.logging.jsonl import JsonlLogger
from trainkit.norms import NormRecorder
from trainkit.protocols import StepOutput


def documented_keys() -> set[str]:
    """Return the keys of the table in trainkit/README.md; names in angle brackets stand for any name."""
    readme = (Path(trainkit.__file__).parent / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| key | meaning |")[2].partition("\n\n")[0]
    return {key for line in table.splitlines()[2:] for key in re.findall(r"`([^`]+)`", line.split("|")[1])}


def test_every_key_that_is_written_is_documented_and_every_documented_key_is_written(tmp_path):
    def objective(model, batch, context):
        output = toy_objective(model, batch, context)
        return StepOutput(output.loss_sum, output.weight, {"own": torch.tensor(1.0)})

    validation = Validation(lambda: [next(ToySource(World(), 1))], every=2, max_batches=1)
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    trainer = make_trainer(World(), make_settings(), objective=objective, callbacks=[logger], validation=validation)
    trainer.callbacks.append(NormRecorder({"mix": trainer.model.mix}, log_every=1))
    trainer.fit()
    lines = [json.loads(line) for line in logger.path.read_text().splitlines()]
    written = {key for line in lines for key in line}
    names = {"own": "<metric>", "/mix": "/<part>"}
    generic = {re.sub(r"^learning_rate/.*", "learning_rate/<group>", key) for key in written}
    for own, placeholder in names.items():
        generic = {key.replace(own, placeholder) for key in generic}
    assert generic == documented_keys()
