"""The process that talks to wandb, so that training does not: whatever happens here, training does not notice.

Standard input brings one JSON object per line: first how to open the run, then records and checkpoints, at last a
farewell. If the input ends without one, training was killed. Imports nothing of ours: wandb alone takes seconds.
"""

import json
import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import wandb


def main() -> None:
    """Open the run, pass on what comes, and close it."""
    sys.excepthook = say_in_one_line
    messages = read_messages()
    run = open_run(next(messages))
    exit_code = 1
    for message in messages:
        if message["kind"] == "log":
            run.log(message["values"])
        elif message["kind"] == "checkpoint":
            log_checkpoint(run, message)
        elif message["kind"] == "end":
            exit_code = message["exit_code"]
    run.finish(exit_code=exit_code)


def read_messages() -> Iterator[dict[str, Any]]:
    """Yield what training sends; a line that a kill cut short is the end."""
    for line in sys.stdin:
        if not line.endswith("\n"):
            return
        yield json.loads(line)


def open_run(settings: dict[str, Any]) -> Any:
    """Open the run online if it can be reached within seconds, else offline."""
    mode = os.environ.get("WANDB_MODE") or settings["mode"]
    if mode == "online":
        try:
            return start_run(settings, mode)
        except (wandb.errors.Error, OSError, TimeoutError) as error:
            wandb.teardown()
            folder = os.path.join(settings["folder"], "wandb")
            reason = str(error).split("\n")[0]
            print(
                f"warning: wandb cannot be reached, logging offline instead ({type(error).__name__}: {reason}); "
                f"later: wandb sync {folder}/offline-run-*",
                file=sys.stderr,
                flush=True,
            )
            mode = "offline"
    return start_run(settings, mode)


def start_run(settings: dict[str, Any], mode: str) -> Any:
    """Start or continue the run of the id that training chose."""
    run = wandb.init(
        project=settings["project"],
        entity=settings["entity"],
        name=settings["run_name"],
        config=settings["config"],
        dir=settings["folder"],
        id=settings["run_id"],
        resume="allow" if settings["is_resumed"] else None,
        mode=mode,
        settings=wandb.Settings(
            init_timeout=settings["init_timeout_s"],
            login_timeout=settings["init_timeout_s"],
            finish_timeout=settings["finish_timeout_s"],
            console="off",  # this process has nothing to say
            quiet=True,  # no summary at the end: training prints its own
            x_stats_pid=settings["training_pid"],
        ),
    )
    run.define_metric("*", step_metric="step")
    return run


def log_checkpoint(run: Any, message: dict[str, Any]) -> None:
    """Upload a checkpoint as a version of the run's artifact; one that was deleted meanwhile is left out."""
    artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model", metadata={"step": message["step"]})
    try:
        artifact.add_dir(message["path"])
    except (OSError, ValueError) as error:
        print(f"warning: wandb: {message['path']} was not uploaded ({error})", file=sys.stderr, flush=True)
        return
    run.log_artifact(artifact, aliases=message["aliases"])


def say_in_one_line(kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    """Report what ends this process without a page of traceback in the middle of a training log."""
    reason = str(error).split("\n")[0]
    print(f"warning: wandb stopped working ({kind.__name__}: {reason}); training goes on without it", file=sys.stderr)


if __name__ == "__main__":
    main()
