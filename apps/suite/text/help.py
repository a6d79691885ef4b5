"""Texts of the Text query tab: what the parameters do, how the method works, the API."""

INFO = {
    "eta": "η: a word's map above it is what is marked for the classifier.",
    "theta": "θ: words whose score is not above it are dropped; the score is shared by all words.",
    "box": "λ: parts of the gradCAM above it are what the refinement spreads from.",
    "presence_on": "Ask of each word also whether it fits better than the background words do. "
    "Without it the best word always stays, and a single word always scores 1.",
    "presence": "Words that reach no more than this against the background words are dropped.",
    "prompts": "How a word's place is marked in the picture that the classifier sees.",
    "recurrence": "Drop words and look again until none is dropped; off: one look, all words stay.",
    "refine": "Spread each map along the picture's own similarities; off: gradCAM as it is.",
    "crf": "A conditional random field draws outlines along the picture's edges.",
    "sam": "Replace masks by those of SAM's everything mode where the two agree. Takes longer.",
    "iom": "φ IoM: SAM's masks that overlap a word's mask more than this are joined. Paper: 0.7.",
    "iou": "φ IoU: the joined mask replaces the word's if both agree more than this. Paper: 0.7.",
}

BACKGROUND = (
    "What the picture may also show and nobody asked for. The words compete with these, and a word "
    "that is looked for is left out of them."
)

HOW_IT_WORKS = """
**CaR** (Sun et al., "CLIP as RNN", CVPR 2024) trains nothing. One CLIP makes a map for each word:
gradCAM against all words and the background words, spread along the picture's own attention. The
place of each map is marked in the picture (by a red circle, by blurring the rest …), and a second
CLIP says how well each marked picture fits its word. Words that fit badly are dropped, the maps of
the others are made anew, now without those rivals, and so on until no word is dropped. A dense CRF
then gives each pixel to one word or to none. **Step by step** plays this through.

**Score** is CLIP's similarity as a softmax over all words that were live in that step: its meaning
hangs on how many there are. **Presence** compares the word with the background words alone, so that
all words can be absent, which the published method cannot say.

**One phrase each** looks for each phrase by itself against the background, as for referring
expressions ("the green frog"); masks may overlap then.

The embedded CLIP knows the objects of this project's sticker world by name, kind and colour, and
nothing else. The published ones (model set Full) know far more.
"""

API_HELP = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860/")
overlay, record, archive = client.predict(
    image=handle_file("picture.jpg"),
    queries=["dog", "person with clothes,people,human", "car"],
    api_name="/segment_text",
)
```

`background_queries`, `eta`, `theta` and `crf_lambda` (λ of the maps' refinement) are the preset's
where they are not given. The record has the masks, what was `dropped` and why, and all `steps`.
"""
