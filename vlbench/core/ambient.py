"""Accelerate's environment variables: those of launch and device are honoured and recorded, all others are removed.

A number may depend on the spec alone, so what else `accelerate launch`, a config file of Accelerate or the shell sets
must not reach the training: gradient accumulation, precision, compilation, DeepSpeed and the like.
"""

from __future__ import annotations

import os

from vlbench.core.errors import VlbenchError

PREFIX = "ACCELERATE_"
FLAGS = (
    "ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP", "ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_ENABLE_RICH",
)  # fmt: skip
TORCH_DEVICE = "ACCELERATE_TORCH_DEVICE"
HONOURED = frozenset(
    {
        *FLAGS, TORCH_DEVICE, "ACCELERATE_LOG_LEVEL", "ACCELERATE_NUM_PROCESSES", "ACCELERATE_IN_TPU_POD",
        "ACCELERATE_DEBUG_RDV_FILE",
    }
)  # fmt: skip
"""Variables that say where and with how many processes a run happens, or what Accelerate prints."""
_PRECISION = "ACCELERATE_MIXED_PRECISION"
"""Overridden by an argument and left in place: it tells that `accelerate launch` started the process."""
_OF_FSDP = "FSDP_"
"""How FSDP shards a model, which `accelerate launch` sets: honoured where FSDP is asked for."""
_TRUE, _FALSE = ("y", "yes", "t", "true", "on", "1"), ("n", "no", "f", "false", "off", "0")
_NEUTRAL = frozenset({"", "0", "1", "no", "none", "false", "default"})
"""Values that ask for nothing; `accelerate launch` sets some of them always."""


def honoured() -> dict[str, str]:
    """The variables of launch and device that are set, by name."""
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in _TRUE
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name in HONOURED or (fsdp and name.startswith(_OF_FSDP))
    }


def pin(device: str | None = None) -> list[str]:
    """Remove from this process's environment the variables of Accelerate that could change a number.

    device: the one asked for by `--device`, which then counts more than Accelerate's variables; None leaves these.

    Returns: what has no effect and asked for something, as `NAME=value`.

    Raises:
        VlbenchError: a flag that is left is neither true nor false.
    """
    dropped = [name for name in os.environ if name.startswith(PREFIX) and name not in HONOURED]
    if device is not None:
        dropped += [name for name in ("ACCELERATE_USE_CPU", TORCH_DEVICE) if name in os.environ]
    removed = {name: os.environ[name] if name == _PRECISION else os.environ.pop(name) for name in sorted(dropped)}
    for name in FLAGS:
        value = os.environ.get(name, "0")
        if value.lower() not in (*_TRUE, *_FALSE):
            raise VlbenchError(f"{name} is {value!r}, neither true nor false: set it to 1 or 0, or unset it")
    return [f"{name}={value}" for name, value in removed.items() if value.lower() not in _NEUTRAL]


def ignored(removed: list[str]) -> str:
    """A sentence about what `pin` removed."""
    return (
        f"ignored, since only vlbench's own options decide a result: {', '.join(removed)} (--dtype, --compile, "
        f"--device and train.accumulation are among them)"
    )
