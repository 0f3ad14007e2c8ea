"""A pretrained model's own preprocessing: images and texts are prepared as in its training.

Shapes: N images, M texts, T text tokens, R regions, F numbers per region, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL.Image import Image, new
from torch import Tensor, nn

from vlbench.core.backbone import Tensors, Visual
from vlbench.core.errors import ExitCode, VlbenchError
from vlbench.core.examples import ImageRef
from vlbench.data.resources import Resources
from vlbench.models.hf.folder import check_processor
from vlbench.models.hf.library import ImageProcessor, Tokenizer
from vlbench.models.hf.pretrained import PretrainedFolder
from vlbench.models.layers.regions import load_regions, region_source, region_tensors


class TextPreparer:
    """The folder's tokenizer.

    longest: tokens that a text is cut to, or padded to if its family requires that.

    Raises VlbenchError: exit 6, the tokenizer does not load, or has no padding token.
    """

    def __init__(self, source: PretrainedFolder, longest: int) -> None:
        self.tokenizer: Tokenizer = _load("AutoTokenizer", source, "a tokenizer")
        if self.tokenizer.pad_token_id is None:
            if self.tokenizer.eos_token_id is None:
                raise VlbenchError(
                    f"{source.name} has a tokenizer without a pad_token, which fills texts up to one length: set it "
                    f"and save it again",
                    ExitCode.WEIGHTS,
                )
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.longest = min(longest, int(self.tokenizer.model_max_length))
        self.pad: bool | str = "max_length" if source.family.pad else True

    def __call__(self, texts: Sequence[str]) -> Tensors:
        """Tokenize M texts: ids [M, T] int64, mask [M, T] bool, True where a token is real."""
        cut = {"padding": self.pad, "truncation": True, "max_length": self.longest}
        encoded = self.tokenizer(list(texts), **cut, return_attention_mask=True, return_tensors="pt")
        return {"ids": encoded["input_ids"], "mask": encoded["attention_mask"].bool()}


class ImagePreparer:
    """The folder's image processor. Raises VlbenchError: exit 6, the image processor does not load."""

    def __init__(self, source: PretrainedFolder) -> None:
        self.source = source
        self.processor: ImageProcessor = _load("AutoImageProcessor", source, "an image processor")

    def __call__(self, images: Sequence[Image]) -> Tensors:
        """Process N images: `pixel_values` [N, ...], and what else the model takes."""
        processed = self.processor(images=list(images), return_tensors="pt")
        return {key: value for key, value in processed.items() if isinstance(value, Tensor)}

    @torch.inference_mode()
    def check(self, see: Callable[[Tensors, Tensor], Visual]) -> None:
        """Raise VlbenchError (exit 6) unless the network accepts the processor's output, tried on a blank image."""
        try:
            see(self([new("RGB", (64, 64))]), torch.zeros(1, dtype=torch.int64))
        except (ValueError, RuntimeError, TypeError, LookupError) as error:
            raise self.source.fault("an image processor that does not fit its network", error) from None


class RegionPreparer:
    """The regions of the data, for a model over regions.

    Raises VlbenchError: there are none, or their features have another width than the network was trained on.
    """

    def __init__(self, resources: Resources, source: PretrainedFolder) -> None:
        self.source = region_source(resources, source.name)
        self.dim = next(
            int(getattr(source.config, name))
            for name in ("visual_feat_dim", "visual_embedding_dim")
            if hasattr(source.config, name)
        )
        if self.source.dim != self.dim:
            raise VlbenchError(
                f"{source.name} takes region features of {self.dim} numbers, and those of the data have "
                f"{self.source.dim}: give the features it was trained on, as TSV files below --data-root"
            )

    def __call__(self, refs: Sequence[ImageRef]) -> Tensors:
        """Load the regions of N images as `region_tensors`; raise DataError if an image has none."""
        return region_tensors([load_regions(self.source, ref) for ref in refs], self.dim)


class PreparingModel(nn.Module):
    """A pretrained backbone with its own preprocessing; the base class of HFDual and HFFusion.

    longest: the longest text in tokens.

    Raises VlbenchError: the folder lacks preprocessing (exit 6), or the regions do not fit.
    """

    def __init__(self, source: PretrainedFolder, longest: int, resources: Resources) -> None:
        super().__init__()
        uses_regions = source.family.visual == "regions"
        check_processor(source.folder, source.name, images=not uses_regions)
        self.source, self.images = source, resources.images
        self.text_preparer = TextPreparer(source, longest)
        self.image_preparer = RegionPreparer(resources, source) if uses_regions else ImagePreparer(source)

    def image_processing(self) -> dict[str, str]:
        """The image processor's class and the library that it resizes with; empty for a model over regions."""
        preparer = self.image_preparer
        return processing_of(preparer.processor) if isinstance(preparer, ImagePreparer) else {}

    def check_images(self, see: Callable[[Tensors, Tensor], Visual]) -> None:
        """Check `see`, the network, as `ImagePreparer.check`."""
        if isinstance(self.image_preparer, ImagePreparer):
            self.image_preparer.check(see)

    def prepare_images(self, refs: Sequence[ImageRef]) -> Tensors:
        """Run the image processor on N images: `pixel_values` [N, ...] and others; or load their regions.

        Raises DataError: an image cannot be read, or has no regions.
        """
        if isinstance(self.image_preparer, RegionPreparer):
            return self.image_preparer(refs)
        return self.image_preparer([self.images.open(ref) for ref in refs])

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        """Tokenize M texts: ids [M, T] int64, mask [M, T] bool."""
        return self.text_preparer(texts)


def processing_of(processor: object) -> dict[str, str]:
    """An image processor's class and backend (`core.backbone.ImageProcessing`); in transformers 4 by its name."""
    name = type(processor).__name__
    backend = getattr(processor, "backend", "torchvision" if name.endswith("Fast") else "pil")
    return {"image_processor": name, "image_backend": str(backend)}


def _load(auto_class: str, source: PretrainedFolder, kind: str) -> Any:
    import transformers

    loader = getattr(transformers, auto_class)
    with source.reading(f"{kind} that does not load"):
        return loader.from_pretrained(source.folder, trust_remote_code=source.loading.trust_remote_code)
