"""Texts of the DreamBooth tab."""

from core.settings import settings

HOW_IT_WORKS = f"""
**DreamBooth** (Ruiz et al., CVPR 2023) teaches a text-to-image model one thing from a few
pictures: a rare word such as *sks* becomes its name, and "a photo of a sks toy on grass" draws it
there. So that the class's word keeps its meaning, the untouched model draws pictures of the class
first, and training goes on with both (*prior preservation*).

Plain DreamBooth learns the backgrounds of the pictures with the thing. As in **PerSAM** (Zhang et
al., ICLR 2024) the thing is marked once here, found in all pictures, and only the error inside of
its mask counts (*masked loss*); the background stays free, for the prompt to decide.

A **LoRA** trains small matrices beside the frozen weights, some megabytes to download; *full*
trains the whole U-Net. One training runs at a time on this device; others wait in the queue and see
their place. It goes on when the page is closed: its link, and this browser, find it again.

Trainings, with their pictures, are kept on the server for {settings.training_days} days after their
last use and can be deleted at once under "Saved subjects". {
    "All learned subjects are listed to everybody on this server."
    if settings.shared_subjects
    else "Nobody sees what others have taught: a training is found by its random id alone, which "
    "is in the link and in this browser."
}
"""

API_HELP = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860/")
job = client.submit(
    images=[handle_file(f"{k}.jpg") for k in range(1, 5)],
    masks=[handle_file("1_mask.png")],
    class_noun="toy",
    preset="quick",
    api_name="/dreambooth_train",
)
for record, weights in job:
    print(record["state"], record["step"], record["remaining"])

before, after, record, archive = client.predict(
    training=record["training"],
    prompt="a photo of {} on grass",
    seeds=[1, 2, 3],
    api_name="/dreambooth_sample",
)
```

One mask is that of the first picture, and the thing is found in the others; or give one for each.
Cancelling the job stops the training; `dreambooth_train(training=…)` goes on from its last
checkpoint. `weights` instead of `training` draws with a downloaded ZIP.
"""

INFO = {
    "class_noun": "The noun of its kind, such as toy or clock; it matters as much as the pictures.",
    "identifier": "A rare word that becomes its name; no word of the language.",
    "masked": "Only the thing is learned; off is plain DreamBooth, which learns the places too.",
    "method": "LoRA: small and quick. Full: all weights of the U-Net.",
    "steps": f"More learn it better, too many copy the pictures. At most "
    f"{settings.max_training_steps}.",
    "learning_rate": "Of AdamW; about 1e-4 to 5e-4 for a LoRA, 5e-6 to 5e-5 for full.",
    "rank": "Of the LoRA: higher is more faithful to the thing, less to the prompt.",
    "batch_size": "Pictures in a step; as many of the class come on top.",
    "seed": "Of everything random; the same seed gives the same training.",
    "sample_steps": "Draw the sample prompts every so many steps; empty: never.",
    "checkpoint_steps": "Keep the state every so many steps, to go on from there.",
    "prior": "Also train on the class's own pictures, so that its word keeps its meaning.",
    "prior_pictures": f"Of the class; the model draws the missing ones first. At most "
    f"{settings.max_class_pictures}.",
    "prior_weight": "Lambda, the weight of their loss. Paper: 1.",
    "background_weight": "Of the error outside of the mask: 0 none, 1 plain DreamBooth.",
    "dilate": "Grow the mask by so many latent cells.",
    "train_text_encoder": "As well as the U-Net: more faithful, more memory.",
    "guidance": "How strictly the prompt is followed.",
    "sampler": "Of the sampler; 20 to 30 are enough.",
    "seeds": "A picture for each, such as 1, 2, 3 or 1-4; the same before and after.",
}
