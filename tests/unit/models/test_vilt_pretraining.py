"""ViLT's pretraining: words hidden whole, half of the images swapped; its values are in test_vilt_golden.py."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlbench.core.errors import VlbenchError
from vlbench.core.examples import ImageRef, Query
from vlbench.data.resources import Resources
from vlbench.data.text.tokenizer import SPECIAL, TextEncoder
from vlbench.models.vilt.backbone import ViLT
from vlbench.models.vilt.modeling import ViLTConfig
from vlbench.models.vilt.pretraining import ViLTPretraining, ViLTPretrainingConfig
from vlbench.objectives.mlm import IGNORED

TEXTS = (
    "two red squares",
    "one blue circle above a green star",
    "a green star",
    "squares and stars",
    "blue",
    "a circle",
)
PIECES = ("red", "blue", "green", "two", "one", "a", "and", "above", "star", "square", "circ", "##s", "##le", "##ed")


class Drawn:
    """Images drawn from their key, in several sizes."""

    def open(self, ref: ImageRef) -> Image.Image:
        draw = np.random.default_rng(zlib.crc32(ref.key.encode()))
        size = [(48, 32), (32, 32), (24, 40)][len(ref.key) % 3]
        return Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def made(tmp_path: Path) -> Any:
    def make(**options: object) -> ViLTPretraining:
        vocabulary = tmp_path / "vocab.txt"
        vocabulary.write_text("\n".join((*SPECIAL, *PIECES)))
        resources = Resources(TextEncoder.from_vocab(vocabulary, 16), Drawn(), None)
        config = ViLTConfig(
            patch=8, grid=4, short_side=32, long_side=48, layers=2, width=16, heads=4, inner=32, positions=16,
            dropout=0.0, initial_std=0.3, vocab_size=resources.text.vocab_size,
        )  # fmt: skip
        torch.manual_seed(1)
        return ViLTPretraining(ViLT(config, resources), ViLTPretrainingConfig.model_validate(options))

    return make


@pytest.fixture
def pairs() -> list[Query]:
    return [Query((ImageRef(Path("none"), f"{n}" * (n + 1)),), text) for n, text in enumerate(TEXTS)]


def test_words_are_hidden_as_a_whole(made: Any, pairs: list[Query]) -> None:
    module, several = made(), 0
    for seed in range(30):
        batch = module.prepare(pairs, Random(seed))
        chosen = batch["labels"] != IGNORED
        assert not (chosen & ~batch["words"]).any()
        goes_on = torch.from_numpy(module.backbone.text.continuing)[batch["ids"]]
        for row, place in (goes_on & batch["words"]).nonzero().tolist():
            assert chosen[row, place] == chosen[row, place - 1]
            several += int(chosen[row, place])
        assert torch.equal(batch["ids"][chosen], batch["labels"][chosen])
        assert torch.equal(batch["ids"][~chosen], batch["hidden_ids"][~chosen])
    assert several > 5
    alone = made(whole_words=False)
    apart = 0
    for seed in range(30):
        batch = alone.prepare(pairs, Random(seed))
        goes_on = torch.from_numpy(alone.backbone.text.continuing)[batch["ids"]] & batch["words"]
        chosen = batch["labels"] != IGNORED
        apart += sum(bool(chosen[row, place] != chosen[row, place - 1]) for row, place in goes_on.nonzero().tolist())
    assert apart > 5


def test_half_of_the_images_are_others(made: Any, pairs: list[Query]) -> None:
    module, got = made(), torch.zeros(6, 6)
    for seed in range(300):
        batch = module.prepare(pairs, Random(seed))
        rows = batch["image_rows"].tolist()
        assert sum(row == place for place, row in enumerate(rows)) == 3
        assert batch["matched"].tolist() == [row == place for place, row in enumerate(rows)]
        got[range(6), rows] += 1
    # Each pair keeps its image 150 times and gets each of five others 30 times, with a standard deviation of 5.2.
    assert float((got - 30 - 120 * torch.eye(6)).abs().max()) < 5 * 8.7
    assert float((got[~torch.eye(6, dtype=torch.bool)] - 30).abs().max()) < 5 * 5.2
    same = [pairs[0], Query(pairs[0].images, "another text"), Query(pairs[1].images, pairs[0].text)]
    assert all(module.prepare(same[:2], Random(seed))["matched"].all() for seed in range(5))
    assert all(module.prepare(same[::2], Random(seed))["matched"].all() for seed in range(5))
    assert module.prepare(pairs[:1], Random(0))["matched"].tolist() == [True]


def test_of_many_patches_some_are_drawn(made: Any, pairs: list[Query]) -> None:
    module, whole = made(max_patches=10), made()
    drawn = [module.prepare(pairs[:1], Random(seed)) for seed in range(8)]
    full = whole.prepare(pairs[:1], Random(0))
    assert full["places"].shape == (1, 16) and len({tuple(batch["places"][0].tolist()) for batch in drawn}) > 4
    for batch in drawn:
        places = batch["places"][0]
        assert places.shape == (10,) and bool((places.diff() > 0).all())
        assert torch.equal(batch["grids"], full["grids"])
        assert torch.equal(batch["patches"][0], full["patches"][0, places])


def test_a_pair_gets_the_image_of_its_row(made: Any, pairs: list[Query]) -> None:
    """Matching and alignment are those of a batch in which the images themselves have changed places."""
    module = made()
    batch = next(b for seed in range(9) if ((b := module.prepare(pairs, Random(seed)))["labels"] != IGNORED).any())
    rows = batch["image_rows"]
    assert rows.tolist() != list(range(6))
    moved = {name: batch[name][rows] for name in ("patches", "places", "grids", "visual_mask")}
    with torch.no_grad():
        losses, others = module.losses(batch), module.losses({**batch, **moved, "image_rows": torch.arange(6)})
    torch.testing.assert_close(losses["itm"], others["itm"])
    torch.testing.assert_close(losses["wpa"], others["wpa"])
    assert not torch.allclose(losses["mlm"], others["mlm"]), "words are hidden over matching pairs"
    assert losses.keys() == {"mlm", "itm", "wpa"}


def test_masked_patches_are_predicted_by_their_mean_colour(made: Any, pairs: list[Query]) -> None:
    module = made(mpp=True)
    chosen = hidden = 0
    for seed in range(20):
        batch = module.prepare(pairs, Random(seed))
        assert not (batch["chosen"] & ~batch["visual_mask"]).any() and not (batch["hidden"] & ~batch["chosen"]).any()
        chosen, hidden = chosen + int(batch["chosen"].sum()), hidden + int(batch["hidden"].sum())
    real = 20 * int(batch["visual_mask"].sum())
    assert chosen / real == pytest.approx(0.15, abs=0.03) and hidden / chosen == pytest.approx(0.8, abs=0.08)
    pixels = batch["patches"][0, 0].view(3, 8, 8).double()
    assert batch["colours"][0, 0].tolist() == [int(channel.mean()) for channel in pixels]
    losses = module.losses(batch)
    assert losses["mpp"].item() == pytest.approx(math.log(256), rel=0.3)
    torch.stack(list(losses.values())).sum().backward()
    assert module.hidden_patch.grad is not None and bool(module.hidden_patch.grad.any())
    none = {**batch, "chosen": torch.zeros_like(batch["chosen"]), "hidden": torch.zeros_like(batch["hidden"])}
    assert module.losses(none)["mpp"].item() == 0


def test_every_parameter_learns(made: Any, pairs: list[Query]) -> None:
    module = made()
    batch = next(b for seed in range(9) if ((b := module.prepare(pairs, Random(seed)))["labels"] != IGNORED).any())
    torch.stack(list(module.losses(batch).values())).sum().backward()
    idle = {name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()}
    assert all(name.endswith("key.bias") for name in idle)  # softmax does not see them


def test_second_images_keep_the_type_of_first_ones(made: Any, pairs: list[Query]) -> None:
    module = made()
    types = module.backbone.network.types.weight
    before = types.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        torch.stack(list(module.losses(module.prepare(pairs, Random(seed))).values())).sum().backward()
        optimizer.step()
        module.after_step()
    assert not torch.equal(types[1], before[1]) and torch.equal(types[1], types[2])


def test_the_ranking_heads_row_is_the_one_for_a_match(made: Any) -> None:
    module = made()
    handed = module.head_weights()
    assert torch.equal(handed["head.score.weight"], module.matching.weight[1:])
    assert torch.equal(handed["head.score.bias"], module.matching.bias[1:])


def test_an_unknown_option_is_an_error(card_of: Any, resources: Any) -> None:
    with pytest.raises(VlbenchError, match=r"pretraining of vilt-tiny: .*masks"):
        ViLTPretraining.from_card(card_of("vilt"), "tiny", resources, {"masks": "paper"})
