"""DreamBooth with and without the mask: what is learned of the subject, and what of its background.

Each subject is taught twice from the same pictures, words, seeds and steps: with the loss inside of
PerSAM's masks, and plainly. Then the untouched and both taught models draw the same prompts, which
name other backgrounds than the pictures have, from the same seeds. Of each way, means over
subjects of:

subject_fidelity: mean cosine of all pairs of a drawn picture and a given one, both cut to the
    subject (PerSAM finds it; the rest is grey). Whole pictures would reward a copied background;
    theirs is ``whole_fidelity``, which is DINO or CLIP-I as published.
prompt_fidelity: mean cosine of a drawn picture and its prompt without the identifier (CLIP-T).
background_fidelity: how well the prompted background is there. On the sticker world the share of
    drawn pictures whose margin looks most like the prompted backdrop (the judge of
    ``diffusion.py``); on photographs CLIP-T of the prompts that name a place.
leak: mean over drawn pictures of the highest cosine with a given one, the subject taken out of
    both.
diversity: mean of 1 - cosine of pairs of drawn pictures of different prompts, the subject taken
    out.

Of both taught ways against each other: ``subject_fidelity_change`` and ``leak_change``, masked
minus unmasked, and ``background_fidelity_gain``, (masked - unmasked) / unmasked; where unmasked is
nothing, by the worth of one picture. ``every_subject_gains`` is the share of subjects whose
fidelity is higher in the masked way than untouched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.events import Finished
from core.dreambooth.masks import propose_masks
from core.dreambooth.pipeline import sample, train
from core.dreambooth.sampling import MAX_PICTURES
from core.dreambooth.subjects import SubjectPicture
from core.errors import SuiteError
from core.evaluation.dreambooth_layout import GivenSubject, Prompt
from core.persam.config import FitConfig, PersamConfig
from core.persam.pipeline import find, learn
from core.persam.target import Reference

if TYPE_CHECKING:
    from core.dreambooth.card import LearnedSubject
    from core.engine.engine import Engine
    from core.persam.profile import Profile

Picture = NDArray[np.uint8]  # RGB (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)
Encoder = Callable[[Sequence[Picture]], Tensor]  # pictures to unit vectors (N, D)

IDENTIFIER = "sks"
WAYS = ("untouched", "masked", "unmasked")
GREY = np.uint8(127)
SCORES = (
    "subject_fidelity",
    "whole_fidelity",
    "prompt_fidelity",
    "background_fidelity",
    "leak",
    "diversity",
)


@dataclass(frozen=True)
class Judges:
    """Who says what is in a picture.

    Args:
        encoders: of pictures, by name; the first one's figures are the main ones.
        prompt_scores: cosine of each picture (N) and its text (N).
        background_scores: in [0, 1] or a cosine, of each picture (N) and its prompt (N), whose
            class is the last argument; prompts that name no background are left out before.
    """

    encoders: dict[str, Encoder]
    prompt_scores: Callable[[Sequence[Picture], Sequence[str]], Tensor]
    background_scores: Callable[[Sequence[Picture], Sequence[Prompt], str], Tensor]


@dataclass(frozen=True)
class Setting:
    """Models, settings and places of a whole run.

    Args:
        config: of the masked training; the other one differs in ``mask_loss`` only.
        seeds: pictures of each prompt.
        folder: for trainings and class pictures.
    """

    engine: Engine
    model_id: str
    sam_id: str
    judges: Judges
    config: DreamBoothConfig
    folder: Path
    seeds: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class Taught:
    """One subject's figures.

    Args:
        scores: by way and name.
        minutes: of each training, class pictures included.
        mask_iou: of PerSAM's masks with the true ones, without the marked picture; None if unknown.
        drawn: pictures by way, in the order of prompts and seeds.
    """

    name: str
    scores: dict[str, dict[str, float]]
    minutes: dict[str, float]
    mask_iou: float | None
    drawn: dict[str, list[Picture]]


def evaluate(setting: Setting, subjects: Iterable[GivenSubject]) -> list[Taught]:
    """Teach and judge all subjects, one after the other."""
    return [teach(setting, subject, number) for number, subject in enumerate(subjects)]


def teach(setting: Setting, subject: GivenSubject, number: int) -> Taught:
    """Teach one subject in both ways, draw its prompts in all three, and judge."""
    pictures = find_subject(setting, subject)
    words = Subject(IDENTIFIER, subject.noun)
    learned: dict[str, LearnedSubject | None] = {"untouched": None}
    minutes = {}
    for way, loss in (("masked", setting.config.mask_loss), ("unmasked", "none")):
        config = replace(setting.config, mask_loss=loss)
        place = setting.folder / f"{number:03d}-{way}"
        start = time.monotonic()
        learned[way] = _train(setting, words, pictures, config, place)
        minutes[way] = (time.monotonic() - start) / 60
    drawn = {way: draw_prompts(setting, subject, learned[way]) for way in WAYS}
    masks = [picture.training_mask for picture in pictures]
    profile = _profile(setting, pictures)
    scores = {
        way: judge(setting, subject, drawn[way], masks, _masks_of(setting, drawn[way], profile))
        for way in WAYS
    }
    return Taught(subject.name, scores, minutes, mask_iou(subject, masks), drawn)


def find_subject(setting: Setting, subject: GivenSubject) -> list[SubjectPicture]:
    """The subject's pictures with PerSAM-F's masks, the first one marked.

    A picture in which nothing was found is used as a whole.
    """
    first = subject.masks[0] if subject.masks[0] is not None else _mark(setting, subject.images[0])
    pictures = [
        SubjectPicture(f"picture-{number}", image, mask=first if number == 0 else None)
        for number, image in enumerate(subject.images)
    ]
    proposed, _ = propose_masks(setting.engine, setting.sam_id, pictures, 0)
    return [
        picture.accept() if picture.mask is not None and picture.mask.any() else picture.use_whole()
        for picture in proposed
    ]


def draw_prompts(
    setting: Setting, subject: GivenSubject, learned: LearnedSubject | None
) -> list[Picture]:
    """Draw each prompt from each seed: RGB uint8 (S, S, 3)."""
    texts = [
        prompt.fill(IDENTIFIER, subject.noun) for prompt in subject.prompts for _ in setting.seeds
    ]
    seeds = [seed for _ in subject.prompts for seed in setting.seeds]
    images: list[Picture] = []
    for start in range(0, len(texts), MAX_PICTURES):
        part = slice(start, start + MAX_PICTURES)
        drawn = sample(
            setting.engine,
            setting.model_id,
            texts[part],
            seeds[part],
            learned=learned,
            config=setting.config,
        )
        images += drawn.images
    return images


def judge(
    setting: Setting,
    subject: GivenSubject,
    drawn: Sequence[Picture],
    given_masks: Sequence[Mask],
    drawn_masks: Sequence[Mask],
) -> dict[str, float]:
    """All scores of one way; those of further encoders carry their names."""
    prompts = [prompt for prompt in subject.prompts for _ in setting.seeds]
    judges, given = setting.judges, subject.images
    cut_given, cut_drawn = cut_out(given, given_masks), cut_out(drawn, drawn_masks)
    rest_given, rest_drawn = take_out(given, given_masks), take_out(drawn, drawn_masks)
    scores: dict[str, float] = {}
    for number, (name, encode) in enumerate(judges.encoders.items()):
        rest = encode(rest_drawn)
        found = {
            "subject_fidelity": pair_fidelity(encode(cut_drawn), encode(cut_given)),
            "whole_fidelity": pair_fidelity(encode(drawn), encode(given)),
            "leak": leak(rest, encode(rest_given)),
            "diversity": diversity(rest, [prompt.template for prompt in prompts]),
        }
        scores |= {(key if number == 0 else f"{name}_{key}"): v for key, v in found.items()}
    texts = [prompt.fill("", subject.noun) for prompt in prompts]
    scores["prompt_fidelity"] = float(judges.prompt_scores(drawn, texts).mean())
    scenes = [index for index, prompt in enumerate(prompts) if prompt.is_scene]
    of_scenes = judges.background_scores(
        [drawn[i] for i in scenes], [prompts[i] for i in scenes], subject.noun
    )
    scores["background_fidelity"] = float(of_scenes.float().mean())
    return scores


def pair_fidelity(drawn: Tensor, given: Tensor) -> float:
    """Mean cosine of all pairs of unit vectors (N, D) and (M, D)."""
    return float((drawn @ given.T).mean())


def leak(drawn: Tensor, given: Tensor) -> float:
    """Mean over (N, D) of the highest cosine with one of (M, D); unit vectors."""
    return float((drawn @ given.T).amax(dim=1).mean())


def diversity(drawn: Tensor, prompts: Sequence[str]) -> float:
    """Mean of 1 - cosine of pairs of unit vectors (N, D) whose prompts differ; 0 without such."""
    numbers = torch.tensor([prompts.index(prompt) for prompt in prompts])
    differ = numbers[:, None] != numbers
    return float((1 - drawn @ drawn.T)[differ].mean()) if differ.any() else 0.0


def cut_out(images: Sequence[Picture], masks: Sequence[Mask]) -> list[Picture]:
    """Grey outside of the mask, cropped to a square around it; as it is with an empty mask."""
    return [
        _crop(np.where(mask[..., None], image, GREY), mask) if mask.any() else image
        for image, mask in zip(images, masks, strict=True)
    ]


def take_out(images: Sequence[Picture], masks: Sequence[Mask]) -> list[Picture]:
    """Grey inside of the mask."""
    pairs = zip(images, masks, strict=True)
    return [np.where(mask[..., None], GREY, image) for image, mask in pairs]


def mask_iou(subject: GivenSubject, masks: Sequence[Mask]) -> float | None:
    """Mean IoU with the true masks, of the pictures that were not marked; None without any."""
    pairs = [
        (mask, true)
        for mask, true in zip(masks[1:], subject.masks[1:], strict=True)
        if true is not None
    ]
    if not pairs:
        return None
    return float(np.mean([(a & b).sum() / max((a | b).sum(), 1) for a, b in pairs]))


def summarise(taught: Sequence[Taught], pictures: int) -> dict[str, float]:
    """Means over subjects of every score and way, and the comparisons of the module's docstring.

    Args:
        pictures: drawn of each subject.
    """
    means = {
        way: {
            name: float(np.mean([one.scores[way][name] for one in taught]))
            for name in taught[0].scores[way]
        }
        for way in WAYS
    }
    figures = {f"{way}_{name}": value for way in WAYS for name, value in means[way].items()}
    masked, unmasked = means["masked"], means["unmasked"]
    least = 1 / (pictures * len(taught))
    gain = masked["background_fidelity"] - unmasked["background_fidelity"]
    gains = [
        one.scores["masked"]["subject_fidelity"] > one.scores["untouched"]["subject_fidelity"]
        for one in taught
    ]
    ious = [one.mask_iou for one in taught if one.mask_iou is not None]
    return (
        {name: masked[name] for name in SCORES}
        | {
            "subject_fidelity_change": masked["subject_fidelity"] - unmasked["subject_fidelity"],
            "prompt_fidelity_change": masked["prompt_fidelity"] - unmasked["prompt_fidelity"],
            "background_fidelity_gain": gain / max(unmasked["background_fidelity"], least),
            "leak_change": masked["leak"] - unmasked["leak"],
            "diversity_change": masked["diversity"] - unmasked["diversity"],
            "every_subject_gains": float(np.mean(gains)),
            "minutes": float(np.mean([one.minutes["masked"] for one in taught])),
            "longest_minutes": max(max(one.minutes.values()) for one in taught),
        }
        | ({"mask_iou": float(np.mean(ious))} if ious else {})
        | figures
    )


def details(taught: Sequence[Taught]) -> dict[str, Any]:
    """What a reader needs to judge the figures: each subject's."""
    return {
        one.name: {"scores": one.scores, "minutes": one.minutes, "mask_iou": one.mask_iou}
        for one in taught
    }


def _train(
    setting: Setting,
    words: Subject,
    pictures: Sequence[SubjectPicture],
    config: DreamBoothConfig,
    folder: Path,
) -> LearnedSubject:
    from core.dreambooth.card import read_subject

    events = train(
        setting.engine,
        setting.model_id,
        words,
        pictures,
        config,
        folder,
        class_root=setting.folder / "class",
    )
    *_, last = events
    if not isinstance(last, Finished):
        raise SuiteError("A training ended before its time: run the evaluation again.")
    return read_subject(last.subject)


def _profile(setting: Setting, pictures: Sequence[SubjectPicture]) -> Profile:
    """What PerSAM knows of the subject: its marked picture."""
    reference = Reference(pictures[0].image, pictures[0].training_mask)
    fit = FitConfig()
    return learn(setting.engine, setting.sam_id, [reference], name="subject", fit=fit).profile


def _masks_of(setting: Setting, images: Sequence[Picture], profile: Profile) -> list[Mask]:
    """Where PerSAM-F sees the subject most, in each picture."""
    config = PersamConfig.persam_f()
    return [
        find(setting.engine, setting.sam_id, image, profile, config).traces[0].found[0].mask
        for image in images
    ]


def _mark(setting: Setting, image: Picture) -> Mask:
    """What SAM sees at the middle of a photograph, for data without masks."""
    from core.sam.predictor import Predictor

    height, width = image.shape[:2]
    with setting.engine.model(setting.sam_id) as sam:
        predictor = Predictor(sam, model_id=setting.sam_id)
        prediction = predictor.predict(
            predictor.encode(image),
            point_coords=np.array([[width / 2, height / 2]], np.float32),
            point_labels=np.array([1], np.int64),
        )
    return prediction.select(prediction.best()).masks()[0, 0]


def _crop(image: Picture, mask: Mask) -> Picture:
    """A square around a mask with a tenth of its side as margin, grey beyond the picture."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    side = int(1.2 * max(np.ptp(rows), np.ptp(columns)) + 2)
    top = int((rows[0] + rows[-1] - side) // 2)
    left = int((columns[0] + columns[-1] - side) // 2)
    padded = np.pad(image, ((side, side), (side, side), (0, 0)), constant_values=GREY)
    return padded[top + side : top + 2 * side, left + side : left + 2 * side]
