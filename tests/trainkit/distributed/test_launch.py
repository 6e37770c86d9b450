"""Workers start, and their values and errors come back to the caller."""

import logging

import pytest
import torch
from trainkit_workers import fail_on_rank_one, report_world

from trainkit.distributed.launch import LaunchSettings, Outcome, _explain, _quiet_agent, launch
from trainkit.distributed.parallel import World, choose_device


def return_world(world: World, extra: str) -> tuple[World, str]:
    return world, extra


def test_one_process_runs_in_place():
    world, extra = launch(return_world, "argument", settings=LaunchSettings(device="cpu"))
    assert (world.rank, world.size, world.is_first, extra) == (0, 1, True, "argument")


def test_a_rank_of_torchrun_joins_the_others(monkeypatch):
    from conftest import free_port

    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert launch(report_world, settings=LaunchSettings(nproc_per_node=5, device="cpu")) == (0, 1, 1)
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error_with_a_remedy():
    with pytest.raises(ValueError, match="torch sees no CUDA device: use auto or cpu"):
        launch(return_world, "argument", settings=LaunchSettings(device="cuda"))
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.slow
def test_the_error_that_came_first_reaches_the_caller_with_its_traceback():
    with pytest.raises(ValueError, match="no such key: raise it here") as caught:
        launch(fail_on_rank_one, "no such key: raise it here", settings=LaunchSettings(nproc_per_node=2, device="cpu"))
    assert "raised in the worker of rank 1" in caught.value.__notes__[0]
    assert "fail_on_rank_one" in caught.value.__notes__[0]


class FakeFailure:
    """Stand for torch's ChildFailedError, which sees only one process."""

    def __init__(self, exitcode: int, rank: int = 0):
        self.rank, self.exitcode = rank, exitcode

    def get_first_failure(self):
        return self.rank, self

    def signal_name(self):
        return "SIGKILL"


def test_a_lost_partner_is_not_taken_for_the_cause():
    outcomes = {
        0: Outcome(error=RuntimeError("Connection closed by peer"), time_s=2.0),
        1: Outcome(error=ValueError("the cause"), time_s=1.0),
    }
    assert str(_explain(FakeFailure(1), outcomes, received=[])) == "the cause"


def test_a_killed_worker_and_an_interrupted_one_are_told_apart():
    assert "rank 1 was killed by SIGKILL: the machine may have run out of memory" in str(
        _explain(FakeFailure(-9, rank=1), {}, received=[])
    )
    assert _explain(FakeFailure(-15), {}, received=[15]).code == 143


def test_the_launcher_keeps_quiet_about_what_the_error_says_and_only_while_it_runs():
    loggers = [logging.getLogger(name) for name in ("torch.distributed.elastic", "torch.multiprocessing")]
    with _quiet_agent():
        assert not any(logger.isEnabledFor(logging.WARNING) for logger in loggers)
    assert all(logger.isEnabledFor(logging.WARNING) for logger in loggers)
