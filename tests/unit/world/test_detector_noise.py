from __future__ import annotations

import numpy as np
import pytest

from vlbench.core.domain import Domain
from vlbench.data.regions.extract import FlatExtractor
from vlbench.data.regions.types import Regions
from vlbench.world.exporters.nlvr2 import SCENES_PER_SET, make_sets
from vlbench.world.language.statements import evaluate
from vlbench.world.rng import stream
from vlbench.world.scenes.detector_noise import ATTRIBUTE_LABELS, OBJECT_LABELS, recognise_thing, with_labels
from vlbench.world.scenes.render import render_scene
from vlbench.world.scenes.scene import Scene, Thing, make_scenes

EXTRACTOR = FlatExtractor()


def regions_of(scene: Scene, domain: Domain) -> Regions:
    return EXTRACTOR(render_scene(scene, domain, seed=0))


def perceived(scene: Scene, domain: Domain) -> Scene:
    """The scene that the regions show; a cell with several things keeps the first, which is the largest."""
    regions = regions_of(scene, domain)
    things: dict[tuple[int, int], Thing] = {}
    for box, descriptor in zip(regions.boxes, regions.features, strict=True):
        thing = recognise_thing(box, descriptor)
        if thing is not None:
            things.setdefault(thing.cell, thing)
    return Scene(scene.id, tuple(things[cell] for cell in sorted(things)))


def solved(domain: Domain) -> float:
    """The fraction of examples of test-p that the solver answers correctly from the regions."""
    right = []
    for statement_set in make_sets("test1", make_scenes("test1", 60 * SCENES_PER_SET, seed=0), seed=0):
        pairs = [(perceived(left, domain), perceived(right, domain)) for left, right in statement_set.pairs]
        for statement, truths in zip(statement_set.statements, statement_set.truths, strict=True):
            right += [evaluate(statement, *pair) == truth for pair, truth in zip(pairs, truths, strict=True)]
    return float(np.mean(right))


def test_what_regions_show_suffices_to_answer() -> None:
    assert solved("plain") >= 0.95


def test_the_textured_domain_is_harder_to_see_but_not_hopeless() -> None:
    scenes = make_scenes("dev", 200, seed=0)
    correct = [perceived(scene, "textured").content() == scene.content() for scene in scenes]
    assert 0.7 <= np.mean(correct) <= 0.97
    assert solved("textured") >= 0.9


def test_plain_things_are_recognised_as_they_are() -> None:
    for scene in make_scenes("dev", 80, seed=0):
        assert perceived(scene, "plain") == scene


@pytest.fixture(scope="module")
def labelled() -> list[tuple[Scene, Regions]]:
    scenes = make_scenes("dev", 300, seed=0)
    return [(scene, with_labels(regions_of(scene, "plain"), stream("labels", scene.id))) for scene in scenes]


def test_labels_err_in_about_one_of_eight_and_then_with_less_confidence(labelled: list[tuple[Scene, Regions]]) -> None:
    right: dict[str, list[bool]] = {"object": [], "attribute": []}
    confidences: dict[str, list[float]] = {"object": [], "attribute": []}
    for scene, regions in labelled:
        things = {thing.box: thing for thing in scene.things}
        for row, box in enumerate(regions.boxes.astype(int).tolist()):
            thing = things[tuple(box)]
            right["object"].append(OBJECT_LABELS[regions.object_ids[row]] == thing.shape)
            right["attribute"].append(ATTRIBUTE_LABELS[regions.attribute_ids[row]] == f"{thing.size} {thing.colour}")
            confidences["object"].append(float(regions.object_confidences[row]))
            confidences["attribute"].append(float(regions.attribute_confidences[row]))
    for name in right:
        hit, sure = np.array(right[name]), np.array(confidences[name])
        assert 0.09 < 1 - hit.mean() < 0.15
        assert sure[hit].mean() > sure[~hit].mean() + 0.1
        assert sure.min() >= 0 and sure.max() <= 1
    misses = np.array(right["object"]), np.array(right["attribute"])
    assert ((~misses[0]) & misses[1]).any() and (misses[0] & ~misses[1]).any()


def test_labels_leave_boxes_and_descriptors_as_they_were(labelled: list[tuple[Scene, Regions]]) -> None:
    for scene, regions in labelled[:20]:
        bare = regions_of(scene, "plain")
        np.testing.assert_array_equal(regions.features, bare.features)
        np.testing.assert_array_equal(regions.boxes, bare.boxes)
        assert regions.object_ids.dtype == np.int64 and regions.object_confidences.dtype == np.float32
