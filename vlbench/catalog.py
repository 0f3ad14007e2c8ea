"""From a name to its card, and from a card to the loaded task or model. The folder listing is the registry."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from vlbench.core.cards import ModelCard, TaskCard
from vlbench.core.errors import DataError, VlbenchError, unknown
from vlbench.core.sources import Source, Sources
from vlbench.core.task import Adapter, Task
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

Card = TypeVar("Card", TaskCard, ModelCard, Sources)
_DOCUMENTATION = {"title", "description", "homepage", "licence", "citation", "leaks"}
_CHECKED_ONLY = {"count", "md5", "overlaps"}
"""Of a task's card and of its splits: what can stop a run or is only shown, and decides no number."""
_SETTINGS = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")  # fmt: skip
"""Files beside a plug-in model's code that it may read."""
Converter: TypeAlias = "Callable[[Mapping[str, object]], Converted]"
"""From weights in a layout of elsewhere to those of a model here."""


def task_folders(tasks_dir: Path | None = None) -> dict[str, Path]:
    """Every task by name: the built-in ones, and over them those of `tasks_dir` (or `$VLBENCH_TASKS`)."""
    folders = _folders(_built_in_tasks(), "task.yaml")
    private = tasks_dir or (Path(os.environ["VLBENCH_TASKS"]) if os.environ.get("VLBENCH_TASKS") else None)
    if private is None:
        return folders
    if not private.is_dir():
        raise VlbenchError(f"--tasks-dir {private} is not a folder: give the folder that holds the task folders")
    return folders | _folders(private, "task.yaml")


def model_folders() -> dict[str, Path]:
    """Every in-repo model by name."""
    return _folders(HERE / "models", "model.yaml")


def task_card(name: str, tasks_dir: Path | None = None) -> TaskCard:
    """The card of a task.

    Raises:
        VlbenchError: no such task, or every fault of its card at once.
    """
    return _card(TaskCard, _find("task", name, task_folders(tasks_dir)) / "task.yaml")


def task_sources(name: str, tasks_dir: Path | None = None) -> tuple[Source, ...]:
    """Where the files of a task come from; empty where nothing beside its card says so.

    Raises:
        VlbenchError: no such task, or every fault of its `downloads.yaml` at once.
    """
    path = _find("task", name, task_folders(tasks_dir)) / "downloads.yaml"
    return _card(Sources, path).sources if path.is_file() else ()


def model_card(name: str) -> ModelCard:
    """The card of a model: an in-repo name, a plug-in's, `hf:FOLDER` or `hf:ID[@REVISION]` for one of transformers',
    or `path/to/file.py:Class` with a `model.yaml` beside it.

    A plug-in is an entry point `vlbench.models` of an installed package, `name = "package.module:Class"`, with a
    `model.yaml` beside that module.
    """
    if name.startswith("hf:"):
        from vlbench.models.hf.card import hf_card  # its config.json may have to be fetched

        return hf_card(name)
    if ".py:" in name:
        file, class_name = name.rsplit(":", 1)
        card = _card(ModelCard, Path(file).parent / "model.yaml")
        return card.model_copy(update={"backbone": f"{Path(file).resolve()}:{class_name}"})
    folders = model_folders()
    card = _card(ModelCard, _find("model", name, folders) / "model.yaml")
    return card if name in folders else card.model_copy(update={"backbone": _plugins("model")[name].value})


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
    """The task over the data below `root`: its card, its adapter's function and its metrics.

    data_root: where the folders lie that tasks share; left out: below `root`.
    """
    from vlbench.data.cache.index import read_examples  # pyarrow, which no listing needs

    folder = _find("task", name, task_folders(tasks_dir))
    card = task_card(name, tasks_dir)
    adapter = cast(Adapter, _attribute(_module_beside(folder, "adapter"), "examples"))
    metrics = {metric: _metric(folder, target) for metric, target in card.metrics.items()}
    siblings = tuple((data_root or root) / folder for folder in card.siblings)
    return Task(card, root, source, adapter, metrics, counts or {}, allow_partial, siblings, reader=read_examples)


def task_root(data_root: Path, task: str) -> Path:
    """Where a task's data lies: `DATA_ROOT/<task>` where that exists, else DATA_ROOT itself."""
    if not data_root.is_dir():
        raise DataError(f"--data-root {data_root} is not a folder: give the folder the data was unpacked into")
    inner = data_root / task
    return inner if inner.is_dir() else data_root


def check_size(card: ModelCard, size: str) -> None:
    """An unknown size is an error that names the near miss."""
    if size not in card.sizes:
        raise unknown(f"size of {card.name}", size, card.sizes)


def load_model(card: ModelCard, size: str, resources: Resources) -> Backbone:
    """The model's class, built from its card at a size, with freshly initialised weights."""
    check_size(card, size)
    build: Any = backbone_class(card)
    return cast("Backbone", build.from_card(card, size, resources))


def backbone_class(card: ModelCard) -> type[Backbone]:
    """The model's class, which says what it can do before anything is built."""
    place, class_name = card.backbone.rsplit(":", 1)
    module = _module_at(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    return cast("type[Backbone]", _attribute(module, class_name))


def shipped_weights(model: str, size: str) -> Path | None:
    """The weights, pretrained on the built-in world, that come with an in-repo model; None where there are none."""
    folder = model_folders().get(model)
    weights = folder / f"{size}.safetensors" if folder else None
    return weights if weights and weights.is_file() else None


def transformers_cards() -> list[ModelCard]:
    """What `hf:` can be, by the architecture that a config.json names."""
    from vlbench.models.hf.card import known_cards

    return known_cards()


def pretrained_folder(card: ModelCard, *, weights: bool = True) -> Path:
    """Where the weights and the preprocessing of a card that says `pretrained` lie, fetched if they have to be.

    weights: whether they are needed too.

    Raises:
        VlbenchError: exit 6, they are not to be had.
    """
    from vlbench.models.hf.folder import folder_of

    return folder_of(card, weights=weights)


def transformers_folder(name: str) -> Path:
    """The folder of `hf:FOLDER` or `hf:ID[@REVISION]`, whatever architecture it holds; fetched where it is not at hand.

    Raises:
        VlbenchError: exit 6, it cannot be fetched.
    """
    from vlbench.models.hf.folder import fetched_folder

    return fetched_folder(name)


def processor_sha256(folder: Path) -> str:
    """Identifies the preprocessing that lies in such a folder."""
    from vlbench.models.hf.folder import processor_sha256 as sha256

    return sha256(folder)


def task_sha256(name: str, tasks_dir: Path | None = None) -> str:
    """Identifies a task: what of its card decides a number, its code, and the data files directly in its folder.

    Its code is every module in its folder, those of its metrics elsewhere, and what they import but installed
    libraries and the rest of vlbench.

    Raises:
        VlbenchError: no such task, or every fault of its card at once.
        DataError: a file in its folder cannot be read.
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
    """Identifies all of a model but its weights where that is no part of this package; empty where it is.

    Of a plug-in: its class, and in that folder its card, its code and files of weights and of settings, with the
    modules that they import but installed libraries. Of a model of transformers: all files of its folder.

    Raises:
        VlbenchError: exit 6, they are not to be had.
        DataError: a file in its folder cannot be read.
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
    """`convert` of the `checkpoint.py` beside the model's class; None where it loads vlbench's own layout only."""
    place, _ = card.backbone.rsplit(":", 1)
    if place.endswith(".py"):
        path = Path(place).with_name("checkpoint.py")
        return cast("Converter", _attribute(_module_at(path), "convert")) if path.is_file() else None
    package = place.rpartition(".")[0]
    if not package or importlib.util.find_spec(f"{package}.checkpoint") is None:
        return None
    return cast("Converter", _attribute(importlib.import_module(f"{package}.checkpoint"), "convert"))


def model_towers(card: ModelCard) -> Mapping[str, Tower]:
    """The parts of an in-repo model that can start from a network of images or texts alone, by `vision` and `text`."""
    name = f"{card.backbone.rsplit(':', 1)[0].rpartition('.')[0]}.checkpoint"
    if not name.startswith(f"{__package__}.") or importlib.util.find_spec(name) is None:
        return {}
    return cast("Mapping[str, Tower]", getattr(importlib.import_module(name), "TOWERS", {}))


def load_pretraining(card: ModelCard, size: str, resources: Resources, options: Mapping[str, Option]) -> Pretraining:
    """The model's backbone with the heads of its pretraining, freshly initialised; options are the model's own."""
    place, class_name = card.pretraining.rsplit(":", 1)
    found = _attribute(importlib.import_module(place), class_name).from_card
    build = cast("Callable[[ModelCard, str, Resources, Mapping[str, Option]], Pretraining]", found)
    return build(card, size, resources, options)


def _built_in_tasks() -> Path:
    return Path(str(importlib.import_module("vlbench._tasks").__file__)).parent


def _folders(parent: Path, card: str) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(parent.glob(f"*/{card}"))}


def _find(kind: str, name: str, folders: Mapping[str, Path]) -> Path:
    """Its folder; where there is none of that name, a plug-in's, nothing of which is imported before it is named."""
    if name in folders:
        return folders[name]
    plugins = _plugins(kind)
    if name in plugins:
        return _folder_of(plugins[name])
    raise unknown(kind, name, {*folders, *plugins}, f"`vlbench list {kind}s` shows them")


def _plugins(kind: str) -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=f"vlbench.{kind}s")}


def _folder_of(plugin: EntryPoint) -> Path:
    """Where the plug-in's module lies."""
    announced = f"{plugin.name!r} is announced by an installed package as {plugin.value}"
    if not plugin.attr:
        raise VlbenchError(f"{announced}: expected package.module:Name, have its entry point mended")
    try:
        return _module_folder(plugin.module)
    except ImportError as error:
        raise VlbenchError(f"{announced}, which cannot be found ({error}): install that package again") from None


def _module_folder(module: str) -> Path:
    """Where a module lies; packages above it are imported, it is not."""
    return _module_file(module).parent


def _module_file(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError("no such module")
    return Path(spec.origin)


def _card(kind: type[Card], path: Path) -> Card:
    if not path.is_file():
        raise VlbenchError(f"{path} is not there: a model or task is a folder with its card in it")
    came_along = path.parent.parent in (HERE / "models", _built_in_tasks())
    return parse(kind, read_yaml(path, str(path), trusted=came_along), str(path))


def _metric(folder: Path, target: str) -> Metric:
    """`package.module:function`, or `module:function` beside the card for a metric of the task's own."""
    place, name = target.rsplit(":", 1)
    module = importlib.import_module(place) if "." in place else _module_beside(folder, place)
    return cast("Metric", _attribute(module, name))


def _module_beside(folder: Path, name: str) -> ModuleType:
    """A built-in task's module by its package name, a private one's by its path."""
    if folder.parent == _built_in_tasks():
        return importlib.import_module(f"vlbench._tasks.{folder.name}.{name}")
    return _module_at(folder / f"{name}.py")


def _module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"vlbench_private_{path.parent.name}_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise VlbenchError(f"{path} is not a Python file: expected the module that the card names")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look a class's module up there
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        raise VlbenchError(f"{module.__file__} has no {name!r}: the card names it, so define it there")
    return getattr(module, name)
