"""Texts of the chat tab: what the parameters do, how the method works, the API."""

INFO = {
    "model": "Who answers. A published one is downloaded at its first question, if it fits into "
    "the memory of this machine.",
    "style": "A sentence that is put behind each question, as in the training; most questions "
    "need none.",
    "tokens": "An answer is cut there. A word is about one token, a mask six.",
    "temperature": "0: the likeliest word each time, so that an answer can be repeated. Above: "
    "words are drawn, the more freely the higher it is.",
    "seed": "Another one draws other words; without effect at temperature 0.",
    "threshold": "Logits above it are mask: higher for tighter masks, lower for fuller ones. "
    "Published: 0.",
}

HOW_IT_WORKS = """
**PixelLM** (Ren et al., "PixelLM: Pixel Reasoning with Large Multimodal Model", CVPR 2024) is a
language model that sees the picture through CLIP's image tower. Behind the words for a thing it
writes six **codebook tokens**, three for each of two scales. A small decoder turns what the model
thought at these tokens into a mask, with the same tower's features: no SAM is involved. The k-th
group of tokens is the k-th mask, and the words before it are the phrase that carries its colour.

The picture is read once. Each answer is written word by word with a cache, so that no word is
read twice, and a mask appears as soon as its six tokens are complete. If the model leaves a group
incomplete, that mask cannot be made, and a note says so. "There is no such thing" is an answer.

The embedded PixelLM speaks of this project's sticker world, in English and in short sentences. The
published ones (see Parameters) want a graphics card; they saw no masks in second turns when they
were trained, so follow-up questions are an experiment there.
"""

API_HELP = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860/")
ask = dict(image=handle_file("picture.jpg"), api_name="/chat_segment")
answer, record, history, overlay, archive = client.predict(message="What can fly?", **ask)
answer, *_ = client.predict(message="And the other one?", history=history, **ask)
```

The answer streams: iterate over `client.submit(…)` to see it grow. `record` has the spans of the
answer with the numbers of their masks, and the masks as run lengths.
"""
