"""Texts of the Personalize tab's accordions."""

HOW_IT_WORKS = """
**PerSAM** (Zhang et al., ICLR 2024) needs no training. The features of your object's cells in the
reference picture are averaged; their cosine with every cell of another picture is the similarity
map. Its highest place becomes a foreground point and its lowest a background point for SAM. In the
first pass the map also draws the decoder's attention towards the object, and the object's features
join the prompt; two more passes refine the mask by its logits and its box.

**PerSAM-F** learns two numbers: how to weigh SAM's three readings (small, middle, large) so that
they give your mask back. It goes without guidance, object features and background point, as its
authors' code does.

PerSAM always answers with a mask. The *presence* score here weighs whether it should: below the
threshold, which was calibrated on pictures without the object, the answer is "not in this picture".
"""

API_HELP = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860/")
overlays, records, archive = client.predict(
    reference_image=handle_file("reference.jpg"),
    reference_mask=handle_file("mask.png"),
    test_images=[handle_file("one.jpg"), handle_file("two.jpg")],
    variant="persam_f",
    api_name="/segment_persam",
)
```

`learn_persam` gives a profile to use again in the place of a reference; `follow_persam` follows
objects through a clip. A presence threshold of 0 always answers with a mask.
"""
