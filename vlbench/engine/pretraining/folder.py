"""The folder of a pretraining: whose it is, its log, and the command that asks for the same again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.spec import PLACE, PretrainSpec
from vlbench.data.cache.folder import atomic_write
from vlbench.data.text.answers import ANSWERS_FILE
from vlbench.engine.runtime.trackers import FOLDER as TRACKERS
from vlbench.engine.training.atomic_folder import remove_folder
from vlbench.engine.training.checkpoint import Checkpoints
from vlbench.records.provenance import portable

WEIGHTS, CARD, METRICS, SPEC = "model.safetensors", "card.json", "metrics.jsonl", "spec.json"
CAPTIONS = ("coco_retrieval",)
"""What is learned from unless told otherwise."""
LAST = 50
"""Steps whose mean losses the card gives."""


def command_of(spec: PretrainSpec) -> str:
    """The command line that asks for this pretraining, wherever and however fast it runs."""
    words = ["vlbench", "pretrain", "--model", spec.model]
    if spec.task and spec.task != CAPTIONS:
        words += ["--task", ",".join(spec.task)]
    words += [word for path in spec.texts for word in ("--texts", path.name)]
    for name, known in PretrainSpec.model_fields.items():
        value = getattr(spec, name)
        if name in ("size", "split", "domain", "seed", "dtype") and value != known.default:
            words += [f"--{name}", ",".join(value) if isinstance(value, tuple) else str(value)]
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
    """A source of weights without the folders of this machine: an id on the hub as it is, of a path its last part."""
    path = Path(source.removeprefix("hf:")).expanduser()
    return f"{'hf:' if source.startswith('hf:') else ''}{path.name}" if path.exists() else source


def made(folder: Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        DataError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {folder} ({error.strerror}): give another --output-path") from None
    return folder


def claim(
    folder: Path,
    spec: PretrainSpec,
    manifests: Mapping[str, str],
    initial: Mapping[str, str],
    code: Mapping[str, str],
) -> None:
    """Make the folder this pretraining's, or check that it is: what was begun otherwise is not gone on with.

    initial: hashes of the weights it starts from, which count in place of their paths. code: the version of vlbench,
    and hashes of the tasks and of a model that is no part of it.

    Raises:
        VlbenchError: it holds another pretraining.
    """
    meaning = portable(spec).model_dump(mode="json", exclude={*PLACE, "save_every", "checkpoint", "init"})
    start = {"initial_weights": dict(initial)} if initial else {}
    text = json.dumps(meaning | {"manifests": manifests, "code": dict(code)} | start, indent=2, sort_keys=True) + "\n"
    begun = folder / SPEC
    if begun.is_file() and spec.resume:
        if begun.read_text(encoding="utf8") != text:
            raise VlbenchError(
                f"{folder} holds another pretraining of {spec.model}: give another --output-path, or begin anew "
                f"with --no-resume"
            )
        return
    for name in (WEIGHTS, CARD, METRICS, ANSWERS_FILE):
        (folder / name).unlink(missing_ok=True)
    remove_folder(folder / TRACKERS)
    Checkpoints(folder).drop_last()
    atomic_write(begun, text)


def last_losses(folder: Path, objectives: tuple[str, ...]) -> dict[str, float]:
    """The mean of each objective's loss over the last steps in the log in which it was asked."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf8").splitlines()[-LAST:]]
    found = {name: [line[name] for line in lines if name in line] for name in objectives}
    return {name: round(sum(values) / len(values), 4) for name, values in found.items() if values}
