"""Texts of the Degraded tab's accordions."""

HOW_IT_WORKS = """
**RobustSAM** (Chen et al., CVPR 2024) keeps SAM as it is and adds to its decoder: four *robust
output tokens* in the place of SAM's, a block that takes degradation out of a token, and one that
takes it out of image features. That block normalises a feature map in two ways, by its own
statistics and by those of training, lets attention choose between them in each part of the
picture, and corrects amplitudes in the Fourier domain, where degradation shows, while phases,
which carry the structure, stay.

SAM here is the same model on its own path: same encoder, one encoding for both, same prompts. Where
the picture was degraded here, IoU is measured with SAM's mask of the clear picture, or with the
mask that you upload. Elastic and glass distortion move pixels; the mask moves along.

**Restore** shows the paper's second use of masks, as a prior for restoration. A motion blur that
was made here is undone by total variation with its known kernel; where a mask has its border a jump
in colour costs less, so that the subject's outline comes out sharp if the mask is right.

The embedded RobustSAM never saw **snow** nor **motion blur** in its training.
"""

API_HELP = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860/")
overlays, record, picture, archive = client.predict(
    image=handle_file("picture.jpg"),
    points=[[320, 200, 1]],
    boxes=[],
    degradation="rain",
    strength=4,
    api_name="/segment_robustsam",
)
```

`degradation="none"` takes the picture as it is. The record has both answers, the degradation's
parameters and, for a picture degraded here, each answer's IoU with SAM's mask of the clear one.
"""
