"""A small CLIP of open_clip's own classes with seeded weights."""

import core.models.torchvision_shim  # noqa: F401  (before anything imports torchvision)

# isort: split
import pytest
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer

from core.clip.model import ClipModel

VISION = {"image_size": 64, "patch_size": 16, "width": 48, "layers": 10, "head_width": 24}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(scope="session")
def small_clip() -> ClipModel:
    torch.manual_seed(4)
    clip = CLIP(40, VISION, TEXT, quick_gelu=True).eval().requires_grad_(False)
    return ClipModel(clip, SimpleTokenizer(context_length=16), id="small")
