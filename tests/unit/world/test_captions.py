"""Captions are true, name everything, keep to the vocabulary, and tell twins apart."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from importlib import resources

import pytest

from vlbench.world.language.captions import LISTS, PER_SCENE, RELATIONS, caption_scene
from vlbench.world.rng import stream
from vlbench.world.scenes.scene import Scene, make_scenes

WORDS = set((resources.files("vlbench.world") / "vocab.txt").read_text().split())
SCENES = make_scenes("train", 400, seed=7)


def captions_of(scene: Scene) -> list[tuple[object, str]]:
    return list(caption_scene(scene, stream("test", scene.id)))


def phrases(sentence: str) -> Counter[tuple[str, str]]:
    """How many things of each colour and shape a sentence lists, read by words alone."""
    numbers = {"a": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
    found: Counter[tuple[str, str]] = Counter()
    pattern = r"\b(a|two|three|four|five|six) (?:big |small )?(red|green|blue|yellow) (circle|square|triangle)s?\b"
    for number, colour, shape in re.findall(pattern, sentence.lower()):
        found[colour, shape] += numbers[number]
    return found


@pytest.mark.parametrize("place", range(PER_SCENE))
def test_every_caption_is_true(place: int) -> None:
    for scene in SCENES:
        claims, sentence = captions_of(scene)[place]
        assert claims.fit(scene), sentence


def test_the_first_two_list_everything() -> None:
    for scene in SCENES:
        there = Counter((thing.colour, thing.shape) for thing in scene.things)
        for _, sentence in captions_of(scene)[:2]:
            assert phrases(sentence) == there, sentence


def test_words_lengths_and_wordings() -> None:
    sentences = [sentence for scene in SCENES for _, sentence in captions_of(scene)]
    assert {word for sentence in sentences for word in re.findall(r"\w+|[^\w\s]", sentence.lower())} <= WORDS
    assert all(3 <= len(sentence.split()) <= 32 for sentence in sentences)
    assert len(LISTS) + len(RELATIONS) >= 8
    assert len(set(sentences)) > 0.9 * len(sentences)


def test_a_full_list_tells_a_scene_from_most_others() -> None:
    for scene in SCENES[:40]:
        claims, _ = captions_of(scene)[0]
        others = sum(claims.fit(other) for other in SCENES if other is not scene)
        assert others <= 0.05 * len(SCENES)


def test_a_full_list_tells_a_scene_from_its_twin() -> None:
    for scene in SCENES[:100]:
        first, *rest = scene.things
        twin = replace(scene, things=(replace(first, colour="red" if first.colour != "red" else "blue"), *rest))
        assert not captions_of(scene)[0][0].fit(twin)
