"""torch.compile: the same answers to rounding and no graph breaks, or a sentence where it cannot or has no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from vlbench import catalog
from vlbench.core.backbone import DualEncoder
from vlbench.core.batch import PairBatch
from vlbench.core.errors import VlbenchError
from vlbench.core.progress import Silent
from vlbench.core.spec import RunSpec
from vlbench.engine.job import plan
from vlbench.engine.learner import TENSOR_METHODS, Learner
from vlbench.engine.resources import make_resources, resource_spec
from vlbench.engine.runtime.environment import check_compiler
from vlbench.heads.build import build_head
from vlbench.heads.forward import PAIRS, Forward, embed_pairs, encode_pairs
from vlbench.heads.generate import GenerateHead
from vlbench.models.fake.backbone import Fake

Batches = Sequence[PairBatch]


@pytest.fixture
def learner_of(tiny_world: Any) -> Iterator[Callable[[str], tuple[Learner, Batches]]]:
    """A tiny learner by the name of its model, and batches of 4 and of 6 examples."""

    def learner_of(name: str) -> tuple[Learner, Batches]:
        task = "nlvr2" if "pair" in catalog.model_card(name).outputs else "flickr30k_retrieval"
        job = plan(RunSpec(task=task, model=name, size="tiny", data_root=tiny_world), Silent())
        model = catalog.load_model(job.card, job.size, make_resources(resource_spec(job), Silent()))
        head = build_head(job.task.card, job.card, model.width, job.labels, job.spec.train)
        learner, batches = Learner(model, head).eval(), list[PairBatch]()
        for start, count in ((0, 4), (4, 6)):
            batch = head.collate(job.report, range(start, start + count), learner.model)
            assert isinstance(batch, PairBatch)
            batches.append(batch)
        return learner, batches

    torch._dynamo.reset()
    counters.clear()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield learner_of
    torch._dynamo.reset()


@torch.inference_mode()
def results(learner: Learner, batches: Batches) -> list[Tensor]:
    """All that the model computes for each batch, in one row."""
    rows = list[Tensor]()
    for batch in batches:
        visual, textual = encode_pairs(learner.model, batch)
        dual = embed_pairs(learner.model, visual, textual) if isinstance(learner.model, DualEncoder) else ()
        rows.append(torch.cat([value.flatten() for value in (learner(batch).logits, *dual)]))
    return rows


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> object:
        raise RuntimeError("\nInvalidCxxCompiler: No working C++ compiler found\nmore of it")

    monkeypatch.setattr(torch, "compile", fails)
    said = r"--compile does not work here \(InvalidCxxCompiler: No working C\+\+ compiler found\): install a C\+\+"
    with pytest.raises(VlbenchError, match=said):
        check_compiler(torch.device("cpu"))


def test_the_methods_over_tensors() -> None:
    assert TENSOR_METHODS == ("see", "read", "fuse", "embed_images", "embed_texts")


@pytest.mark.parametrize(
    "name", ["soho", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vilt", "cvlp", "lxmert", "brivl"))]
)
def test_no_graph_breaks_and_one_more_graph_for_other_sizes(
    name: str, learner_of: Callable[[str], tuple[Learner, Batches]]
) -> None:
    learner, batches = learner_of(name)
    plain, names = results(learner, batches), [*learner.state_dict()]
    learner.compile_model(backend="eager")
    compiled = results(learner, batches)
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-5)
    methods = sum(hasattr(learner.model, name) for name in TENSOR_METHODS)
    assert methods <= counters["stats"]["unique_graphs"] <= 2 * methods
    assert not counters["graph_break"]
    assert [*learner.state_dict()] == names  # nothing is renamed


@pytest.mark.slow
def test_compiled_code_gives_the_same(learner_of: Callable[[str], tuple[Learner, Batches]]) -> None:
    try:
        check_compiler(torch.device("cpu"))
    except VlbenchError as error:
        pytest.skip(error.message)
    learner, batches = learner_of("vilt")
    plain = results(learner, batches)
    learner.compile_model()
    for one, other in zip(plain, results(learner, batches), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_copy_runs_its_own_weights(learner_of: Callable[[str], tuple[Learner, Batches]]) -> None:
    learner, batches = learner_of("fake")
    learner.compile_model(backend="eager")
    copy = deepcopy(learner)
    for parameter in copy.backbone.parameters():
        parameter.zero_()
    pooled = [Forward(one.model, batches[0]).run(PAIRS).features.pooled for one in (learner, copy)]
    assert pooled[0].abs().sum() > 0 == pooled[1].abs().sum()


def test_a_generative_model_without_a_network_is_rejected() -> None:
    learner = Learner(Fake(), GenerateHead(catalog.task_card("nlvr2")))
    with pytest.raises(VlbenchError, match="--compile has no effect on Fake, which has no network: leave it out"):
        learner.compile_model()
