"""Find tasks and models by name, read their cards and load them. The folders are the registry."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from vlbench.core.cards import Download, Downloads, ModelCard, TaskCard
from vlbench.core.errors import DataError, VlbenchError, unknown
from vlbench.core.paths import visible
from vlbench.core.plugin_modules import import_file
from vlbench.core.task import Adapter, Task
from vlbench.core.user_code import UserCodeError, same_folder
from vlbench.core.validate import parse
from vlbench.core.yamlfile import read_yaml
from vlbench.data.files.code import CODE, WEIGHTS, content_sha256, data_beside, files_below, with_imports

if TYPE_CHECKING:
    from vlbench.core.backbone import Backbone
    from vlbench.core.pretraining import Option, Pretraining
    from vlbench.core.results import Metric
    from vlbench.data.resources import Resources
    from vlbench.models.layers.convert import Converted
    from vlbench.models.layers.towers import Tower

HERE = Path(__file__).parent

Card = TypeVar("Card", TaskCard, ModelCard, Downloads)
_DOCUMENTATION = {"title", "description", "homepage", "licence", "citation", "leaks"}
_CHECKED_ONLY = {"count", "md5", "overlaps"}
"""Fields of a task's card and of its splits that are only shown or checked, and affect no number."""
_SETTINGS = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")  # fmt: skip
"""Files beside the code of a plug-in model that it may read."""
Converter: TypeAlias = "Callable[[Mapping[str, object]], Converted]"
"""Converts the state dict of another code base to that of a model."""


def task_folders(tasks_dir: Path | None = None) -> dict[str, Path]:
    """Name -> folder of every task: the built-in ones, overridden by those of `tasks_dir` (or `$VLBENCH_TASKS`)."""
    folders = _folders(_built_in_tasks(), "task.yaml")
    private = tasks_dir or (Path(os.environ["VLBENCH_TASKS"]) if os.environ.get("VLBENCH_TASKS") else None)
    if private is None:
        return folders
    if not private.is_dir():
        raise VlbenchError(f"--tasks-dir {private} is not a folder: give the folder that holds the task folders")
    return folders | _folders(private, "task.yaml")


def model_folders() -> dict[str, Path]:
    """Name -> folder of every model of this package."""
    return _folders(HERE / "models", "model.yaml")


def task_card(name: str, tasks_dir: Path | None = None) -> TaskCard:
    """The card of a task; raises VlbenchError for an unknown task, or with all faults of its card."""
    return _card(TaskCard, _find("task", name, task_folders(tasks_dir)) / "task.yaml")


def task_sources(name: str, tasks_dir: Path | None = None) -> tuple[Download, ...]:
    """The downloads of a task, none without a `downloads.yaml` beside its card; raises VlbenchError as `task_card`."""
    path = _find("task", name, task_folders(tasks_dir)) / "downloads.yaml"
    return _card(Downloads, path).sources if path.is_file() else ()


def model_card(name: str) -> ModelCard:
    """The card of a model; raises VlbenchError for an unknown model, or with all faults of its card.

    name: a model of this package or of a plug-in; `hf:FOLDER` or `hf:ID[@REVISION]` for a model of transformers; or
    `path/to/file.py:Class` with a `model.yaml` beside the file. A plug-in is an entry point `vlbench.models` of an
    installed package, `name = "package.module:Class"`, with a `model.yaml` beside that module.
    """
    if name.startswith("hf:"):
        from vlbench.models.hf.card import hf_card  # its config.json may have to be fetched

        return hf_card(name)
    if ".py:" in name:
        file, class_name = name.rsplit(":", 1)
        if not Path(file).is_file():
            raise VlbenchError(f"--model {name}: there is no file {file}")
        card = _user_card(Path(file).parent / "model.yaml")
        return card.model_copy(update={"backbone": f"{Path(file).resolve()}:{class_name}"})
    if name.endswith(".py"):
        raise VlbenchError(f"--model {name} names a file without its class: give {name}:CLASS, the model's class in it")
    folders = model_folders()
    if name in folders:
        return _card(ModelCard, folders[name] / "model.yaml")
    card = _user_card(_find("model", name, folders) / "model.yaml")
    return card.model_copy(update={"backbone": _plugins("model")[name].value})


def load_task(
    name: str,
    root: Path,
    source: Literal["world", "real"],
    *,
    counts: Mapping[str, int] | None = None,
    tasks_dir: Path | None = None,
    allow_partial: bool = False,
    data_root: Path | None = None,
) -> Task:
    """The task with the data below `root`: its card, its adapter's function and its metrics.

    data_root: the folder of the folders that tasks share; None for `root`.
    """
    from vlbench.data.cache.index import read_examples  # pyarrow, which no listing needs

    folder = _find("task", name, task_folders(tasks_dir))
    card = task_card(name, tasks_dir)
    adapter: Adapter = _attribute(_module_beside(folder, "adapter"), "examples")
    metrics = {metric: _metric(folder, target) for metric, target in card.metrics.items()}
    siblings = tuple((data_root or root) / folder for folder in card.siblings)
    return Task(card, root, source, adapter, metrics, counts or {}, allow_partial, siblings, reader=read_examples)


def task_root(data_root: Path, task: str) -> Path:
    """The folder of a task's data: `DATA_ROOT/<task>` if it exists, else DATA_ROOT itself."""
    if not data_root.is_dir():
        raise DataError(f"--data-root {data_root} is not a folder: give the folder the data was unpacked into")
    inner = data_root / task
    return inner if inner.is_dir() else data_root


def check_size(card: ModelCard, size: str) -> None:
    """Raise VlbenchError, with a near miss, if the model has no such size."""
    if size not in card.sizes:
        raise unknown(f"size of {card.name}", size, card.sizes)


def load_model(card: ModelCard, size: str, resources: Resources) -> Backbone:
    """The model of that size, with freshly initialised weights."""
    check_size(card, size)
    with same_folder():
        backbone: Backbone = _named(card.backbone).from_card(card, size, resources)
    return backbone


def backbone_class(card: ModelCard) -> type[Backbone]:
    """The model's class: its protocols show what the model can do before it is built."""
    kind: type[Backbone] = _named(card.backbone)
    return kind


def shipped_weights(model: str, size: str) -> Path | None:
    """The weights of a model of this package, pretrained on the synthetic world; None if there are none."""
    folder = model_folders().get(model)
    weights = folder / f"{size}.safetensors" if folder else None
    return weights if weights and weights.is_file() else None


def transformers_cards() -> list[ModelCard]:
    """The cards of the architectures (in a config.json) that `hf:` supports."""
    from vlbench.models.hf.card import known_cards

    return known_cards()


def pretrained_folder(card: ModelCard, *, weights: bool = True) -> Path:
    """The folder with the preprocessing, and the weights if asked for, of a `pretrained` card, downloaded if needed.

    Raises VlbenchError (exit 6) if they cannot be downloaded.
    """
    from vlbench.models.hf.folder import folder_of

    return folder_of(card, weights=weights)


def transformers_folder(name: str) -> Path:
    """The folder of `hf:FOLDER` or `hf:ID[@REVISION]`, downloaded if needed; VlbenchError (exit 6) if it cannot be."""
    from vlbench.models.hf.folder import fetched_folder

    return fetched_folder(name)


def processor_sha256(folder: Path) -> str:
    """The hash of the preprocessing in such a folder."""
    from vlbench.models.hf.folder import processor_sha256 as sha256

    return sha256(folder)


def task_sha256(name: str, tasks_dir: Path | None = None) -> str:
    """The hash of a task: the fields of its card that affect numbers, its code, and the data files in its folder.

    Its code is all modules in its folder and those of its metrics elsewhere, with their imports, except installed
    libraries and the rest of vlbench. Raises VlbenchError as `task_card`, and DataError for an unreadable file.
    """
    card, folder = task_card(name, tasks_dir), _find("task", name, task_folders(tasks_dir))
    facts = card.model_dump(
        mode="json", exclude={**dict.fromkeys(_DOCUMENTATION, True), "splits": {"__all__": _CHECKED_ONLY}}
    )
    elsewhere = (target.rsplit(":", 1)[0] for target in card.metrics.values())
    code = with_imports(folder, files_below(folder, CODE), [place for place in elsewhere if "." in place])
    data = {path.name: path for path in data_beside(folder, but=("task.yaml", "downloads.yaml"))}
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(f"{text} {content_sha256(code)} {content_sha256(data)}".encode()).hexdigest()


def own_sha256(card: ModelCard) -> str:
    """The hash of a model outside this package, without its checkpoint; empty for a model of this package.

    For a plug-in: its class, and in its folder the card, code, weights and settings, with the imports of the code,
    except installed libraries. For a model of transformers: all files of its folder. Raises VlbenchError (exit 6) if
    they cannot be downloaded, and DataError for an unreadable file.
    """
    if card.pretrained:
        from vlbench.models.hf.folder import settings_sha256

        return settings_sha256(pretrained_folder(card, weights=False))
    place, class_name = card.backbone.rsplit(":", 1)
    if place.startswith(f"{__package__}."):
        return ""
    module = Path(place) if place.endswith(".py") else _module_file(place)
    folder = module.parent
    beside = (path for name in ("model.yaml", *_SETTINGS) if (path := folder / name).is_file())
    files = with_imports(folder, [*filter(Path.is_file, [module]), *files_below(folder, (*CODE, *WEIGHTS)), *beside])
    return hashlib.sha256(f"{Path(place).name}:{class_name} {content_sha256(files)}".encode()).hexdigest()


def weights_converter(card: ModelCard) -> Converter | None:
    """`convert` of the `checkpoint.py` beside the model's class; None for a model that loads vlbench's layout only."""
    place, _ = card.backbone.rsplit(":", 1)
    if place.endswith(".py"):
        path = Path(place).with_name("checkpoint.py")
        module = _module_at(path) if path.is_file() else None
    else:
        name = f"{place.rpartition('.')[0]}.checkpoint"
        module = importlib.import_module(name) if "." in place and importlib.util.find_spec(name) else None
    converter: Converter | None = None if module is None else _attribute(module, "convert")
    return converter


def model_towers(card: ModelCard) -> Mapping[str, Tower]:
    """The towers of a model of this package that can start from an image or text network, by `vision` and `text`."""
    name = f"{card.backbone.rsplit(':', 1)[0].rpartition('.')[0]}.checkpoint"
    if not name.startswith(f"{__package__}.") or importlib.util.find_spec(name) is None:
        return {}
    towers: Mapping[str, Tower] = getattr(importlib.import_module(name), "TOWERS", {})
    return towers


def load_pretraining(card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Pretraining:
    """The model's backbone with its pretraining heads, freshly initialised. options: those of the model."""
    with same_folder():
        pretraining: Pretraining = _named(card.pretraining).from_card(card, size, resources, options)
    return pretraining


def _built_in_tasks() -> Path:
    return Path(str(importlib.import_module("vlbench._tasks").__file__)).parent


def _folders(parent: Path, card: str) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in visible(parent, f"*/{card}")}


def _find(kind: str, name: str, folders: Mapping[str, Path]) -> Path:
    """The folder of that name, else that of a plug-in, which is imported only if it is named.

    Raises VlbenchError with a near miss if there is none.
    """
    if name in folders:
        return folders[name]
    plugins = _plugins(kind)
    if name in plugins:
        return _folder_of(plugins[name])
    raise unknown(kind, name, {*folders, *plugins}, f"`vlbench list {kind}s` shows them")


def _plugins(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"vlbench.{kind}s")}


def _folder_of(plugin: EntryPoint) -> Path:
    """The folder of the plug-in's module; raises VlbenchError if its entry point names no object or no module."""
    announced = f"{plugin.name!r} is announced by an installed package as {plugin.value}"
    if not plugin.attr:
        raise VlbenchError(f"{announced}: expected package.module:Name, so fix the entry point of that package")
    try:
        return _module_file(plugin.module).parent
    except ImportError as error:
        raise VlbenchError(f"{announced}, which cannot be found ({error}): install that package again") from None


def _module_file(module: str) -> Path:
    """The file of a module, without importing it (packages above it are imported)."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError("no such module")
    return Path(spec.origin)


def _card(kind: type[Card], path: Path) -> Card:
    if not path.is_file():
        raise VlbenchError(f"{path} is not there: a model or task is a folder with its card in it")
    is_built_in = path.parent.parent in (HERE / "models", _built_in_tasks())
    return parse(kind, read_yaml(path, str(path), trusted=is_built_in), str(path))


def _user_card(path: Path) -> ModelCard:
    """The card of a model outside this package; raises VlbenchError as `_card`, and if it is said to be pretrained."""
    card = _card(ModelCard, path)
    for field in ("pretrained", "own_code"):
        if getattr(card, field):
            raise VlbenchError(
                f"{path}: {field} is for models of transformers, which are named hf:FOLDER: leave it out, and give the "
                f"weights of this model with --checkpoint"
            )
    return card


def _metric(folder: Path, target: str) -> Metric:
    """The metric `package.module:function`, or `module:function` with the module beside the task's card."""
    place, name = target.rsplit(":", 1)
    module = importlib.import_module(place) if "." in place else _module_beside(folder, place)
    metric: Metric = _attribute(module, name)
    return metric


def _module_beside(folder: Path, name: str) -> ModuleType:
    """The module of that name in a task's folder: by package name for a built-in task, else by path."""
    if folder.parent == _built_in_tasks():
        return importlib.import_module(f"vlbench._tasks.{folder.name}.{name}")
    return _module_at(folder / f"{name}.py")


def _module_at(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        raise VlbenchError(f"{path} is not a Python file: expected the module that the card names")
    try:
        return import_file(path)
    except ImportError as error:
        raise UserCodeError(f"{path} cannot be imported ({error}): correct its imports") from error


def _named(place: str) -> Any:
    """The object that a card names as `package.module:Name`, or the command line as `path/to/file.py:Name`."""
    module, name = place.rsplit(":", 1)
    if module.endswith(".py"):
        return _attribute(
            _module_at(Path(module)), name, "--model names it, so give a class of that file, or define it"
        )
    return _attribute(importlib.import_module(module), name)


def _attribute(module: ModuleType, name: str, remedy: str = "the card names it, so define it there") -> Any:
    if not hasattr(module, name):
        raise VlbenchError(f"{module.__file__} has no {name!r}: {remedy}")
    return getattr(module, name)
