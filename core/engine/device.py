"""Choose where models run and in which precision, and say so in words.

On Apple's GPU (MPS) there is no float64: coordinates and scores that go to a model have to be
float32, which is what ``core.prompts`` holds them in.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from core.errors import ModelUnavailable

MIB = 2**20
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pick_device(override: str = "auto") -> torch.device:
    """Choose CUDA, else MPS, else the CPU; or what ``override`` names ("cuda:1", "cpu", …).

    Raises:
        ModelUnavailable: this machine does not have the named device.
    """
    if override != "auto":
        return _named_device(override)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_precision(device: torch.device, override: str = "auto") -> torch.dtype:
    """Choose the data type of the heavy encoders on a device; decoders always use float32.

    Automatic: bfloat16 on a CUDA device that has it, float16 on an older one, float32 on the CPU
    and on MPS. float16 has a range of 65504, which TinyViT's activations leave, and no fast
    kernels on the CPU.

    Raises:
        ModelUnavailable: ``override`` is no known type, or one the device cannot use.
    """
    if override == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if override not in PRECISIONS:
        raise ModelUnavailable(
            f"The precision {override!r} is not known: use auto, {', '.join(PRECISIONS)}."
        )
    if override == "float16" and device.type == "cpu":
        raise ModelUnavailable("The CPU cannot run in float16: use float32, bfloat16 or auto.")
    return PRECISIONS[override]


def describe(device: torch.device) -> str:
    """Name a device for a page: "NVIDIA H100, 79 GiB", "Apple GPU", "CPU, 2 cores"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device.type == "mps":
        return "Apple GPU"
    cores = usable_cores()
    return f"CPU, {cores} core{'s' if cores > 1 else ''}"


def usable_cores() -> int:
    """Cores that this process may use, which a container can limit below the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory_mib(device: torch.device) -> int:
    """Memory of a device that is free now, MiB; on the CPU within the container's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // MIB
    if device.type == "mps":
        used = torch.mps.driver_allocated_memory()
        return max(torch.mps.recommended_max_memory() - used, 0) // MIB
    free = psutil.virtual_memory().available
    limit = _container_headroom()
    return (free if limit is None else min(free, limit)) // MIB


def release_cached_memory(device: torch.device) -> None:
    """Give memory that PyTorch holds without using it back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was asked of it, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def lower_precision(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Let a module compute in ``dtype`` while callers keep passing and getting float32.

    Weights of linear and convolution layers are converted, which halves their memory; norms and
    position tables stay float32, as autocast wants them.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.to(dtype)
    module.forward = _autocast_forward(module.forward, dtype, device)


def _autocast_forward(
    forward: Callable[..., Any], dtype: torch.dtype, device: torch.device
) -> Callable[..., Any]:
    @functools.wraps(forward)
    def low_precision_forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, dtype):
            return _to_float32(forward(*args, **kwargs))

    return low_precision_forward


def _to_float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    if isinstance(output, list | tuple):
        return type(output)(_to_float32(item) for item in output)
    return output


def _named_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelUnavailable(
            f"The device {name!r} is not on this machine: use auto or cpu."
        ) from error
    return device


def _container_headroom(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes until the container's memory limit (cgroup v2); None where there is no limit."""
    try:
        limit = int((folder / "memory.max").read_text())  # "max" where there is no limit
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Pages of files that were read once count as used but go when memory is needed.
    return max(limit - used + int(stat.get("inactive_file", 0)), 0)
