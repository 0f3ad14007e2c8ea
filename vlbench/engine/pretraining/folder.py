"""The folder of a pretraining: its files, which pretraining it belongs to, and the command that reproduces it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from vlbench import __version__, catalog
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.paths import expand_home
from vlbench.core.spec import PLACE, PretrainSpec
from vlbench.data.cache.folder import atomic_write
from vlbench.data.text.answers import ANSWERS_FILE
from vlbench.engine.pretraining.loop import Work
from vlbench.engine.runtime.trackers import FOLDER as TRACKERS
from vlbench.engine.training.atomic_folder import drop_training_state, remove_folder
from vlbench.records.provenance import portable

WEIGHTS, CARD, METRICS, SPEC = "model.safetensors", "card.json", "metrics.jsonl", "spec.json"
CAPTIONS = ("coco_retrieval",)
"""The tasks that are trained on by default."""
LAST = 50
"""The number of last steps whose mean losses are on the card."""


def command_of(spec: PretrainSpec) -> str:
    """The command line of this pretraining, without paths of this machine and options that only change its speed."""
    words = ["vlbench", "pretrain", "--model", spec.model]
    if spec.task and spec.task != CAPTIONS:
        words += ["--task", ",".join(spec.task)]
    words += [word for path in spec.texts for word in ("--texts", path.name)]
    for name, field in PretrainSpec.model_fields.items():
        value = getattr(spec, name)
        if name in ("size", "split", "domain", "seed", "dtype", "matmul_precision") and value != field.default:
            words += [f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, tuple) else str(value)]
    if spec.checkpoint is not None:
        words += ["--checkpoint", Path(spec.checkpoint).name]
    if spec.init:
        words += ["--init", ",".join(f"{tower}={_portable_source(source)}" for tower, source in spec.init.items())]
    if spec.vocabulary is not None:
        words += ["--vocabulary", spec.vocabulary.name]
    if spec.objectives:
        words += ["--objectives", ",".join(spec.objectives)]
    settings = spec.train.model_dump(mode="json", exclude_none=True)
    words += [word for name, value in settings.items() for word in ("--set", f"train.{name}={value}")]
    words += [word for name, value in spec.options.items() for word in ("--set", f"options.{name}={value}")]
    return shlex.join(words)


def _portable_source(source: str) -> str:
    """A source of weights without the folders of this machine: a hub id unchanged, the last part of a path."""
    path = expand_home(Path(source.removeprefix("hf:")))
    return f"{'hf:' if source.startswith('hf:') else ''}{path.name}" if path.exists() else source


def make_folder(folder: Path) -> None:
    """Create the folder if it does not exist. Raises DataError if it cannot be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {folder} ({error.strerror}): give another --output-path") from None


def claim_folder(work: Work) -> None:
    """Write to the folder which pretraining it holds; if it is resumed, check that it is the same one.

    The hashes of the weights that training starts from count instead of their paths.

    Raises:
        VlbenchError: the folder holds another pretraining.
    """
    spec, folder = work.spec, work.folder
    tasks = {f"task {name}": catalog.task_sha256(name, spec.tasks_dir) for name in spec.task or ()}
    content = portable(spec).model_dump(mode="json", exclude={*PLACE, "save_every", "checkpoint", "init"})
    if spec.matmul_precision == "highest":  # as in pretrainings from before it was an option
        del content["matmul_precision"]
    content["manifests"] = work.examples.manifests()
    content["code"] = {"vlbench": __version__, "model": catalog.own_sha256(work.card), **tasks}
    if work.initial.hashes:
        content["initial_weights"] = dict(work.initial.hashes)
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    path = folder / SPEC
    if path.is_file() and spec.resume:
        if path.read_text(encoding="utf8") != text:
            raise VlbenchError(
                f"{folder} holds another pretraining of {spec.model}: give another --output-path, or begin anew "
                f"with --no-resume"
            )
        return
    for name in (WEIGHTS, CARD, METRICS, ANSWERS_FILE):
        (folder / name).unlink(missing_ok=True)
    remove_folder(folder / TRACKERS)
    drop_training_state(folder)
    atomic_write(path, text)


def last_losses(folder: Path, objectives: tuple[str, ...]) -> dict[str, float]:
    """The mean of each objective's loss over those of the last logged steps in which it was trained."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf8").splitlines()[-LAST:]]
    losses = {name: [line[name] for line in lines if name in line] for name in objectives}
    return {name: round(sum(values) / len(values), 4) for name, values in losses.items() if values}
