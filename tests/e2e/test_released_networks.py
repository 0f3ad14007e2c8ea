"""Official files of the golden cases, from the command line to a record: BriVL untrained, SOHO with its own head.

The networks that these files make are compared with numbers of the official code in the unit tests.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

from vlbench import catalog
from vlbench.core.cards import SizeCard
from vlbench.core.progress import Silent
from vlbench.core.record import LoadReport
from vlbench.core.spec import RunSpec
from vlbench.data.text.tokenizer import SPECIAL
from vlbench.engine.job import Job, plan
from vlbench.engine.resources import make_resources, resource_spec
from vlbench.engine.weights.loading import Wanted, load_weights
from vlbench.records.folder import read_run

UNIT = Path(__file__).resolve().parents[1] / "unit" / "models"


def size_of(model: str) -> Callable[..., SizeCard]:
    """The function of the model's golden test that makes a size of our card out of a case's configuration."""
    name = f"test_{model}_golden"
    spec = importlib.util.spec_from_file_location(name, UNIT / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks up the module it is defined in
    spec.loader.exec_module(module)
    made: Callable[..., SizeCard] = module.size_of
    return made


class Released:
    """A model beside the package whose one size is a golden case's, and the case's weights as an official file."""

    def __init__(self, name: str, case: Any, size: SizeCard, folder: Path) -> None:
        self.card = catalog.model_card(name).model_copy(update={"sizes": {"golden": size}})
        self.model = f"{folder / 'released.py'}:{self.card.backbone.rpartition(':')[2]}"
        self.file = folder / f"{name}.pth"
        place, _, kind = self.card.backbone.partition(":")
        (folder / "released.py").write_text(f"from {place} import {kind}\n")
        (folder / "checkpoint.py").write_text(f"from {place.replace('backbone', 'checkpoint')} import convert\n")
        (folder / "model.yaml").write_text(yaml.safe_dump(self.card.model_dump(mode="json", exclude_none=True)))
        torch.save(WRAPPED[name](case.weights), self.file)
        words = (*SPECIAL, "red", "blue", "green", "circle", "square", "how", "many", "is", "there", "a", "?", "what")
        (folder / "vocab.txt").write_text("\n".join([*words, *(f"word{n}" for n in range(300 - len(words)))]))

    def run(self, vlbench: Callable[..., Any], data_root: Path, task: str, mode: str, limit: int) -> Path:
        """A run from the file, which must succeed; its folder."""
        done = vlbench(
            "run", "--task", task, "--model", self.model, "--mode", mode, "--checkpoint", self.file, "--limit", limit,
            "--data-root", data_root, "--output-path", self.file.parent / "runs", "--controls", "none", "--quiet",
        )  # fmt: skip
        assert done.code == 0, done.err
        return done.run

    def built(self, task: str, data_root: Path, limit: int) -> tuple[Job, Any]:
        """The questions, and the network with the file's weights."""
        spec = RunSpec(task=task, model=self.model, data_root=data_root, limit=limit, checkpoint=str(self.file))
        job = plan(spec.model_copy(update={"mode": "eval"}), Silent())
        backbone = catalog.load_model(self.card, "golden", make_resources(resource_spec(job), Silent()))
        load_weights(torch.nn.ModuleDict({"backbone": backbone}), self.file, Wanted(self.card))
        return job, backbone.eval()


def with_momentum(state: dict[str, Tensor]) -> dict[str, object]:
    """BriVL's file holds both towers twice."""
    copies = {key.replace("encoder.", "encoder_mom.", 1): value for key, value in state.items()}
    return {"learnable": {f"module.{key}": value for key, value in (state | copies).items()}}


def of_epoch(state: dict[str, Tensor]) -> dict[str, object]:
    return {"meta": {"epoch": 20}, "state_dict": {f"module.{key}": value for key, value in state.items()}}


WRAPPED: dict[str, Callable[[dict[str, Tensor]], dict[str, object]]] = {"brivl": with_momentum, "soho": of_epoch}


def report(folder: Path) -> LoadReport:
    found = read_run(folder).model.load_report
    assert found is not None
    return found


def test_sohos_official_file_answers_vqa_with_its_own_head(
    vlbench: Callable[..., Any], golden_case: Callable[[str, str], Any], tiny_world: Path, tmp_path: Path
) -> None:
    """Linear, ReLU, Linear over the state of [CLS], by hand, for each question alone."""
    case = golden_case("soho", "vqa")
    size = size_of("soho")(catalog.model_card("soho"), case.config, short_side=128, long_side=192)
    soho = Released("soho", case, size.model_copy(update={"vocabulary": "own"}), tmp_path)
    answers = ["yes", "no", *(f"answer {number}" for number in range(29))]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    done = soho.run(vlbench, tiny_world, "vqa2", "eval", 40)
    assert (report(done).missing, report(done).unexpected, report(done).absent) == (0, 0, ())
    assert report(done).converted == report(done).matched
    job, backbone = soho.built("vqa2", tiny_world, 40)
    inner, outer = ((case.weights[f"head.vqa.{n}.weight"], case.weights[f"head.vqa.{n}.bias"]) for n in (0, 3))
    expected = {}
    for example in job.report:
        with torch.no_grad():
            seen = backbone.see(backbone.prepare_images(example.query.images), torch.zeros(1, dtype=torch.int64))
            state = backbone.fuse(seen, backbone.read(backbone.prepare_texts([example.query.text]))).pooled[0]
        logits = outer[0] @ (inner[0] @ state + inner[1]).clamp(min=0) + outer[1]
        expected[example.id] = logits.sigmoid()
    rows = pd.read_parquet(done / "samples.parquet")
    given = {
        name: dict(zip(*both, strict=True)) for name, *both in rows[["example_id", "labels", "label_scores"]].values
    }
    assert given.keys() == expected.keys() and len({max(scores, key=scores.get) for scores in given.values()}) > 1
    for name, scores in given.items():
        wanted = {answer: float(expected[name][answers.index(answer)]) for answer in scores}
        assert scores == pytest.approx(wanted, abs=1e-4)
        assert min(wanted.values()) >= float(expected[name].sort(descending=True).values[9]) - 1e-4


def test_brivls_official_file_ranks_without_training(
    vlbench: Callable[..., Any], golden_case: Callable[[str, str], Any], tiny_world: Path, tmp_path: Path
) -> None:
    """Zero-shot. The momentum towers, which only pretraining has a use for, are nothing unexpected."""
    case = golden_case("brivl", "image")
    brivl = Released("brivl", case, size_of("brivl")(case.config), tmp_path)
    done = brivl.run(vlbench, tiny_world, "coco_retrieval", "zero-shot", 6)
    assert (report(done).missing, report(done).unexpected, report(done).absent) == (0, 0, ())
    assert report(done).converted == report(done).matched
    job, backbone = brivl.built("coco_retrieval", tiny_world, 6)
    refs = {example.reference.image: example.query.images[0] for example in job.report}
    with torch.no_grad():
        images = torch.cat([one_image(backbone, ref) for ref in refs.values()])
        texts = torch.cat(
            [backbone.read(backbone.prepare_texts([each.query.text])).states[:, 0] for each in job.report]
        )
    scores = texts @ images.T
    own = [list(refs).index(example.reference.image) for example in job.report]
    expected = {e.id: int((row > row[place]).sum()) for e, row, place in zip(job.report, scores, own, strict=True)}
    rows = pd.read_parquet(done / "ranks.parquet")
    assert len(refs) > 3 and len(set(expected.values())) > 2
    found = {row.query_id: row.rank_low for row in rows.itertuples() if row.query_id in expected}
    assert found == expected


def one_image(backbone: Any, ref: Any) -> Tensor:
    embedded: Tensor = backbone.see(backbone.prepare_images([ref]), torch.zeros(1, dtype=torch.int64)).states[:, 0]
    return embedded
