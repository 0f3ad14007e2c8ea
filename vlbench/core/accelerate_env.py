"""Accelerate's environment variables: those for launch and device are kept and recorded, all others are removed.

Results may depend on the spec only, so other settings of `accelerate launch`, of Accelerate's config file or of the
shell must not reach the training: gradient accumulation, precision, compilation, DeepSpeed and so on.
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
KEPT = frozenset(
    {
        *FLAGS, TORCH_DEVICE, "ACCELERATE_LOG_LEVEL", "ACCELERATE_NUM_PROCESSES", "ACCELERATE_IN_TPU_POD",
        "ACCELERATE_DEBUG_RDV_FILE",
    }
)  # fmt: skip
"""Variables for the device and the number of processes of a run, and for what Accelerate prints."""
_PRECISION = "ACCELERATE_MIXED_PRECISION"
"""Overridden by an argument and kept: it shows that `accelerate launch` started the process."""
_FSDP_PREFIX = "FSDP_"
"""FSDP's sharding options, set by `accelerate launch`: kept where FSDP is requested."""
_TRUE, _FALSE = ("y", "yes", "t", "true", "on", "1"), ("n", "no", "f", "false", "off", "0")
_NEUTRAL = frozenset({"", "0", "1", "no", "none", "false", "default"})
"""Values without an effect; `accelerate launch` always sets some of them."""


def asks_for_fsdp() -> bool:
    """Whether Accelerate's configuration asks for its FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in _TRUE


def kept_variables() -> dict[str, str]:
    """The variables for launch and device that are set, by name."""
    fsdp = asks_for_fsdp()
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name in KEPT or (fsdp and name.startswith(_FSDP_PREFIX))
    }


def remove_variables(device: str | None = None) -> list[str]:
    """Remove from this process's environment the variables of Accelerate that could change a result.

    Returns those that would have had an effect, as `NAME=value`. device: the value of `--device`, which overrides
    Accelerate's variables for the device; None keeps these. Raises VlbenchError if a kept flag is not true or false.
    """
    dropped = [name for name in os.environ if name.startswith(PREFIX) and name not in KEPT]
    if device is not None:
        dropped += [name for name in ("ACCELERATE_USE_CPU", TORCH_DEVICE) if name in os.environ]
    removed = {name: os.environ[name] if name == _PRECISION else os.environ.pop(name) for name in sorted(dropped)}
    for name in FLAGS:
        value = os.environ.get(name, "0")
        if value.lower() not in (*_TRUE, *_FALSE):
            raise VlbenchError(f"{name} is {value!r}, neither true nor false: set it to 1 or 0, or unset it")
    return [f"{name}={value}" for name, value in removed.items() if value.lower() not in _NEUTRAL]


def removed_message(removed: list[str]) -> str:
    """The message about the variables that `remove_variables` returned."""
    return (
        f"ignored, since only vlbench's own options decide a result: {', '.join(removed)} (--dtype, --compile, "
        f"--device and train.accumulation are among them)"
    )
