"""Names of floating-point types, as configurations write them, and what is done with them."""

import torch
from torch import nn

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def dtype_from_name(name: str) -> torch.dtype:
    """Return the torch dtype of that name; raises ValueError listing the names there are."""
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}; choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def cast_weights(model: nn.Module, name: str) -> None:
    """Keep a model's weights in another type, in place: a name of DTYPES, or "auto".

    "auto" is bfloat16 on a GPU that computes in it, else float32. Buffers stay as they are: rotary tables rounded to
    bfloat16 would no longer tell neighbouring positions apart.
    """
    parameters = list(model.parameters())
    if name == "auto":
        is_narrow = parameters[0].is_cuda and torch.cuda.is_bf16_supported()
        name = "bfloat16" if is_narrow else "float32"
    for parameter in parameters:
        parameter.data = parameter.data.to(dtype_from_name(name))
