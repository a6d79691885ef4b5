"""Reasoning chat (PixelLM): answers in words whose phrases are linked to masks.

Ren et al., "PixelLM: Pixel Reasoning with Large Multimodal Model", CVPR 2024, arXiv 2312.02228.
A CLIP image tower and a LLaMA language model; for each thing that an answer means, the language
model writes a group of codebook tokens, which a small decoder turns into a mask.
"""

import core.models.torchvision_shim  # noqa: F401  (segment_anything imports torchvision)
