"""Texts of the Segment tab's accordions."""

HOW_IT_WORKS = """
**Segment Anything** (Kirillov et al., 2023) reads a picture once with its image encoder. Points and
boxes become tokens; a small decoder lets them attend to the picture and returns up to three masks
with the IoU that it expects each to have. That is why the first answer takes longer than the next
ones, and why one click can have three readings: a part, a whole, the whole it belongs to.

**Words** do not go into SAM: its authors never released that part. Everything mode cuts the picture
up, CLIP compares each piece with the words and with words for backgrounds, and the pieces that win
are kept. CaR, beside it, asks CLIP alone where a word is; its own tab shows how.

The score is the model's own opinion, not a measurement. Below are the logits of the mask in use,
before the threshold: orange is mask, blue is not, white is undecided.
"""

API_HELP = """
Every button here is an endpoint as well; `Use via API` at the foot of the page lists them all.

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860/")
overlay, record, archive = client.predict(
    image=handle_file("picture.jpg"),
    points=[[320, 240, 1], [40, 40, 0]],  # x, y, 1 foreground or 0 background
    boxes=[],                             # x0, y0, x1, y1: one object for each
    api_name="/segment_sam",
)
```

Also `segment_words`, `segment_everything`, `segment_edges`, `propose_objects`, `list_models` and
`health`.
Coordinates are pixels of the upright picture, origin at the top left; masks in the record are COCO
run lengths (`pycocotools.mask.decode`).
"""
