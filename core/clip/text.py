"""Text features of CLIP: unit vectors, remembered by string for each model.

A vocabulary is asked for again and again (each step, each picture, each frame), and on a CPU its
encoding takes longer than the picture's.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.clip.model import ClipModel

MAX_TEXTS = 8192  # remembered of each model; 25 MB with ViT-L-14
BATCH = 64  # texts encoded at once

_features: weakref.WeakKeyDictionary[nn.Module, OrderedDict[str, Tensor]]
_features = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def fill_template(template: str, name: str) -> str:
    """Put a name in the place of "{}"; other braces in the name stay what they are."""
    return template.replace("{}", name)


def encode_texts(model: ClipModel, texts: Sequence[str]) -> Tensor:
    """Encode texts as they are, each string once in the life of the model.

    Returns:
        float32 (N, E), unit length, on the model's device.
    """
    with _lock:
        known = _features.setdefault(model.clip, OrderedDict())
        found = {text: known[text] for text in texts if text in known}
    missing = [text for text in dict.fromkeys(texts) if text not in found]
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        found |= zip(part, _encode(model, part), strict=True)
    with _lock:
        for text in texts:
            known[text] = found[text]
            known.move_to_end(text)
        while len(known) > MAX_TEXTS:
            known.popitem(last=False)
    empty = torch.zeros(0, model.visual.output_dim, device=model.device)
    return torch.stack([found[text] for text in texts]) if texts else empty


def encode_templates(model: ClipModel, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Encode each name in each template; float32 (T, N, E), unit length."""
    texts = [fill_template(template, name) for template in templates for name in names]
    return encode_texts(model, texts).unflatten(0, (len(templates), len(names)))


def average_templates(features: Tensor) -> Tensor:
    """Average (T, N, E) over the templates and bring back to unit length, (N, E)."""
    return F.normalize(features.mean(dim=0), dim=-1)


def truncated_texts(model: ClipModel, texts: Sequence[str]) -> list[str]:
    """Which texts are longer than the text tower can read; open_clip cuts those off silently.

    Of a tokenizer without ``encode`` a text counts as too long when it fills the whole row.
    """
    encode = getattr(model.tokenize, "encode", None)
    if encode is None:
        return [text for text in texts if bool(model.tokenize([text])[0, -1] != 0)]
    length = model.tokenize(list(texts[:1])).shape[1] if texts else 0
    return [text for text in texts if len(encode(text)) + 2 > length]  # start and end token


def forget_texts(model: ClipModel) -> None:
    """Drop what is remembered of a model, after its weights were changed."""
    with _lock:
        _features.pop(model.clip, None)


@torch.no_grad()
def _encode(model: ClipModel, texts: list[str]) -> Tensor:
    with model.text_precision():
        features = model.clip.encode_text(model.tokenize(texts).to(model.device))
    return F.normalize(features.float(), dim=-1)
