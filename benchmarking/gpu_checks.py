"""What must hold on a GPU and cannot be seen on a CPU. Each check raises AssertionError; tests and the report run them.

They need torch alone: the machine with the GPU may have nothing else.
"""

import os

# Matrix products are deterministic only with a workspace of fixed size, which must be known before the first of them.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarking.training_contenders import OurLoop
from benchmarking.training_workload import Workload
from profiling import memory
from profiling.nvtx import NvtxRecorder, nvtx_range, recorded_by
from profiling.trace import traced
from transformerlm.inference.autoregressive import AutoregressiveSettings, decode_autoregressive
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.sampling import SamplingSettings, row_generators
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.autoregressive import Autoregressive
from transformerlm.objectives.base import LanguageObjective
from transformerlm.objectives.block_diffusion import BlockDiffusion
from transformerlm.objectives.masked_diffusion import MaskedDiffusion

SHAPE = ModelShape(512, 128, 128, 3, 4, 4, 384)
MASK_ID = 511


def make_model(device: torch.device, **changes: object) -> TransformerLM:
    """Return a small float32 model whose weights are the same in every call."""
    torch.manual_seed(0)
    return TransformerLM(replace(SHAPE, **changes)).to(device)


def make_tokens(device: torch.device, rows: int = 4) -> Tensor:
    """Return random rows of the context's length."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(MASK_ID, (rows, SHAPE.context_length), generator=generator).to(device)


def make_loop(device: torch.device, objective: LanguageObjective, folder: str, name: str = "metrics") -> OurLoop:
    """Return a Trainer on random tokens, in bfloat16 on a GPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    is_block = isinstance(objective, BlockDiffusion)
    shape = replace(SHAPE, block_length=objective.block_length, shift_logits=True) if is_block else SHAPE
    return OurLoop(Workload(shape, 4, device, dtype), objective, Path(folder) / f"{name}.jsonl", is_compiled=False)


def check_attention_backends(device: torch.device) -> None:
    """Every kernel of torch's that takes the shape gives the logits of attention written out, in bfloat16."""
    tokens, reference = make_tokens(device), make_model(device, attention_backend="mha")
    names = ("auto", "math", "flash", "mem_efficient", "cudnn") if device.type == "cuda" else ("auto", "math")
    with torch.no_grad():
        for is_causal in (True, False):
            expected = reference(tokens, is_causal=is_causal)
            for name in names:
                model = make_model(device, sdp_backend=name)
                with torch.autocast(device.type, dtype=torch.bfloat16):
                    found = model(tokens, is_causal=is_causal).float()
                error = ((found - expected).norm() / expected.norm()).item()
                assert error < 0.02, f"{name}, causal {is_causal}: the logits are off by {error:.3f}"


def check_compiled(device: torch.device) -> None:
    """A compiled model, in one graph, has the loss and the gradients of the eager one."""
    found = []
    for is_compiled in (False, True):
        model = make_model(device)
        network = torch.compile(model, fullgraph=True) if is_compiled else model
        output = Autoregressive()(network, {"tokens": make_tokens(device)}, None)
        output.loss_sum.backward()
        found.append((output.loss_sum.detach(), {name: each.grad for name, each in model.named_parameters()}))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-4)
    for name, gradient in found[0][1].items():
        error = ((found[1][1][name] - gradient).norm() / gradient.norm()).item()
        assert error < 1e-3, f"the gradient of {name} is off by {error:.4f}"


def check_graph_decode(device: torch.device) -> None:
    """Decoding with a compiled step, on a GPU a CUDA graph, draws the tokens that the eager step draws."""
    model, texts = make_model(device).eval(), []
    canvases = [Canvas.continuing(list(range(1, 1 + length)), 64, 64) for length in (5, 9)]
    for is_compiled in (False, True):
        settings = AutoregressiveSettings(MASK_ID - 1, MASK_ID, is_compiled=is_compiled)
        decoded = decode_autoregressive(model, canvases, settings, SamplingSettings(), row_generators([1, 2]))
        texts.append(decoded.rows)
    assert texts[0] == texts[1], "the compiled step draws other tokens"


def check_no_waiting(device: torch.device) -> None:
    """No step waits for the GPU: torch raises where one would."""
    objectives = (
        Autoregressive(),
        MaskedDiffusion(MASK_ID),
        BlockDiffusion(MASK_ID, is_first_given=True, block_length=16),
    )
    with tempfile.TemporaryDirectory() as folder:
        for objective in objectives:
            loop = make_loop(device, objective, folder, type(objective).__name__)
            loop.run(2)
            with _refusing_to_wait(device):
                loop.run(5)
            loop.close()


@contextmanager
def _refusing_to_wait(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_bitwise_resume(device: torch.device) -> None:
    """Six steps are three steps, everything copied into a new trainer, and three more: to the last bit."""
    torch.use_deterministic_algorithms(True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole = make_loop(device, MaskedDiffusion(MASK_ID), folder, "whole")
            whole.run(6)
            first = make_loop(device, MaskedDiffusion(MASK_ID), folder, "first")
            first.run(3)
            second = make_loop(device, MaskedDiffusion(MASK_ID), folder, "second")
            second.restore(copy.deepcopy(first.state_dict()))
            second.run(3)
            for name, weight in whole.model.state_dict().items():
                assert torch.equal(second.model.state_dict()[name], weight), f"{name} differs after resuming"
            for loop in (whole, first, second):
                loop.close()
    finally:
        torch.use_deterministic_algorithms(False)


def check_memory_helpers(device: torch.device) -> None:
    """Peaks follow allocations, and snapshots can be read; without a GPU nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alloc_history.json"
        is_gpu = device.type == "cuda"
        assert memory.reset_peaks() == is_gpu
        assert memory.start_history(True) == is_gpu
        before = memory.peaks().allocated_bytes
        held = torch.zeros(2**20, device=device)
        assert memory.dump_snapshot(path) == is_gpu
        assert memory.start_history(False) == is_gpu
        assert path.exists() == is_gpu
        if is_gpu:
            assert memory.peaks().allocated_bytes >= before + held.nbytes
            assert "segments" in json.loads(path.read_text())
            assert "Allocated" in memory.summary() or "GPU" in memory.summary()


def check_ranges_in_a_profile(device: torch.device) -> None:
    """A trace shows the named ranges of a step, and on a GPU its kernels; NVTX takes the same ranges if installed."""
    with tempfile.TemporaryDirectory() as folder:
        loop = make_loop(device, Autoregressive(), folder)
        loop.run(1)
        with traced() as profiler:
            loop.train(1)
        loop.close()
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    names = {event.get("name") for event in events}
    missing = {"fetch", "forward", "backward", "clip", "optimizer"} - names
    assert not missing, f"the trace lacks the ranges {sorted(missing)}"
    if device.type == "cuda":
        assert any(event.get("cat") == "kernel" for event in events), "the trace shows no kernel"
    try:
        import nvtx
    except ImportError:
        return
    with recorded_by(NvtxRecorder(nvtx.get_domain("transformerlm"))), nvtx_range("step"), nvtx_range("forward"):
        make_model(device)(make_tokens(device), is_causal=True)


def check_flex_attention(device: torch.device) -> None:
    """FlexAttention has the loss and the gradients of a dense mask, for documents and for block diffusion."""
    tokens = make_tokens(device)
    documents = (torch.arange(SHAPE.context_length, device=device) // 37).expand_as(tokens)
    two_streams = torch.cat((tokens, tokens), dim=1)
    for given, extra in ((tokens, {"documents": documents}), (two_streams, {"block_length": 16})):
        found = []
        for backend in ("sdpa", "mha"):  # the second always takes the dense mask
            model = make_model(device, attention_backend=backend)
            model(given, is_causal=False, **extra).logsumexp(-1).mean().backward()
            found.append(model.blocks[0].attention.qkv.weight.grad)
        error = ((found[0] - found[1]).norm() / found[1].norm()).item()
        assert error < 0.02, f"{next(iter(extra))}: gradients are off by {error:.3f}"


CHECKS: dict[str, Callable[[torch.device], None]] = {
    "attention backends equal": check_attention_backends,
    "compiled equals eager": check_compiled,
    "CUDA-graph decoding equals eager": check_graph_decode,
    "no step waits for the GPU": check_no_waiting,
    "bitwise resume, deterministic algorithms": check_bitwise_resume,
    "memory helpers": check_memory_helpers,
    "ranges and kernels in a profile": check_ranges_in_a_profile,
    "FlexAttention equals the dense mask": check_flex_attention,
}
