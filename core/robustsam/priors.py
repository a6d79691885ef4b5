"""Masks as a prior of restoration, the paper's second use (section 4.4), with what they are worth.

The paper puts masks into networks for dehazing and deblurring. Here they guide a classical
deblurring (``restoration.deblur``) of a picture that was smeared by motion in this suite: its
kernel is known then, and so is the picture before the smear, which the results are measured with.
Pictures are RGB uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from core import masks as mask_ops
from core.degradations import Degraded, degrade_chain
from core.degradations.blur import centred_line_kernel
from core.errors import PromptError
from core.images import fit_within
from core.robustsam.restoration import deblur

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken

Image = NDArray[np.uint8]
Masks = NDArray[np.bool_]

NEAR = 1 / 64  # of the longer side: how far a subject's surroundings reach
MOST_SIDE = 1024  # px, longer side up to which a visitor waits for seconds only
BEFORE = "degraded"  # names the picture as it was before it was restored


@dataclass(frozen=True)
class Quality:
    """How close a picture comes to another one.

    Args:
        psnr: dB, of values in [0, 255]; 100 for equal pictures.
        ssim: at most 1.
        subject_psnr, subject_ssim: the same in and near the subject only.
    """

    psnr: float
    ssim: float
    subject_psnr: float
    subject_ssim: float


@dataclass(frozen=True, eq=False)
class Restoration:
    """One result: by which prior, the picture, and how good it is."""

    name: str
    image: Image
    quality: Quality


@dataclass(frozen=True, eq=False)
class Smear:
    """A picture that was smeared by motion here, and what is known about that.

    Args:
        image: the degraded picture.
        sharp: the picture just before the smear, the clear one if nothing came before.
        kernel: (k, k), what was smeared with.
        noise: deviation in grey levels of what came after the smear.
        before: names of the degradations that came before, which stay in ``sharp``.
    """

    image: Image
    sharp: Image
    kernel: NDArray[np.float32]
    noise: float
    before: tuple[str, ...]


def read_smear(clear: Image, degraded: Degraded, most_side: int | None = None) -> Smear:
    """Tell how a picture was smeared, by making its degradations once more up to there.

    Args:
        degraded: from ``clear``, by ``degrade`` or ``degrade_chain`` at severities.
        most_side: longer pictures are scaled down, with their smear.

    Raises:
        PromptError: there is no motion blur among its degradations, or one without a severity.
    """
    steps = degraded.steps
    names = [step["name"] for step in steps]
    if "motion_blur" not in names:
        raise PromptError("This picture was not smeared by motion: choose a motion blur first.")
    index = names.index("motion_blur")
    if steps[index]["severity"] is None:
        raise PromptError("A smear from the published ranges cannot be undone: give a severity.")
    chain = [(step["name"], step["severity"]) for step in steps[: index + 1]]
    seed = degraded.parameters["seed"]
    pictures = (
        degraded.image,
        degrade_chain(clear, chain[:-1], seed=seed).image,
        degrade_chain(clear, chain, seed=seed).image,
    )
    image, sharp, smeared = (fit_within(one, most_side or max(clear.shape)) for one in pictures)
    drawn, scale = steps[index]["drawn"], max(image.shape[:2]) / max(clear.shape[:2])
    return Smear(
        image,
        sharp,
        centred_line_kernel(max(1.0, drawn["length_px"] * scale), drawn["angle"]),
        float(np.std(image.astype(np.float32) - smeared)),
        tuple(name for name, _ in chain[:-1]),
    )


def restore_degraded(
    clear: Image,
    degraded: Degraded,
    answers: Mapping[str, Masks | None],
    subject: Masks,
    *,
    cancel: CancelToken | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[Smear, list[Restoration]]:
    """Deblur a picture that was smeared here: by no prior ("none"), then by every model's masks.

    Args:
        degraded: from ``clear``.
        answers: masks (N, H, W) by name; None where a model found nothing.
        subject: (H, W), what to look at closely.

    Returns:
        What is known of the smear, and the results of ``restore_with_priors``, whose longer
        side is at most ``MOST_SIDE``.

    Raises:
        PromptError: there is no motion blur among the picture's degradations.
        Cancelled: on request, between two priors.
    """
    smear = read_smear(clear, degraded, MOST_SIDE)
    size = (smear.image.shape[0], smear.image.shape[1])
    priors = {name: None if m is None else resize_masks(m, size) for name, m in answers.items()}
    results = restore_with_priors(
        smear.image,
        smear.kernel,
        {"none": None, **priors},
        smear.sharp,
        around(resize_masks(subject[None], size)[0]),
        noise=smear.noise,
        cancel=cancel,
        progress=progress,
    )
    return smear, results


def restore_with_priors(
    image: Image,
    kernel: NDArray[np.floating],
    priors: Mapping[str, Masks | None],
    sharp: Image,
    near: Masks,
    *,
    noise: float | None = None,
    cancel: CancelToken | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> list[Restoration]:
    """Deblur one picture under every prior, and measure each result.

    Args:
        kernel, noise: as ``deblur`` takes them.
        priors: masks (N, H, W) by name; None: no prior.
        sharp: what the results are measured with.
        near: (H, W), where the subject is.

    Returns:
        The picture itself, named ``BEFORE``, then one result for each prior.

    Raises:
        ImageError: something does not fit the picture.
        Cancelled: on request, between two priors.
    """
    results = [Restoration(BEFORE, image, measure_quality(image, sharp, near))]
    for done, (name, masks) in enumerate(priors.items()):
        if cancel is not None:
            cancel.raise_if_cancelled(f"after {done} of {len(priors)} pictures")
        if progress is not None:
            progress(done / len(priors), f"picture {done + 1} of {len(priors)}")
        restored = deblur(image, kernel, masks, noise=noise)
        results.append(Restoration(name, restored, measure_quality(restored, sharp, near)))
    return results


def around(subject: Masks) -> Masks:
    """A subject's mask (H, W) with its surroundings, where its outline can go wrong."""
    return mask_ops.dilate(subject, NEAR * max(subject.shape))


def resize_masks(masks: Masks, size: tuple[int, int]) -> Masks:
    """Masks (N, H, W) for a picture of another size (h, w): nearest neighbours."""
    height, width = size
    if masks.shape[1:] == size:
        return masks
    planes = [
        cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        for mask in masks
    ]
    return np.array(planes, bool).reshape(-1, height, width)


def measure_quality(image: Image, sharp: Image, near: Masks) -> Quality:
    """Compare a picture with the one that it should be, as a whole and where ``near`` (H, W) is."""
    ssim, places = _similarity(image, sharp)
    return Quality(
        peak_signal_to_noise(image, sharp),
        ssim,
        peak_signal_to_noise(image[near], sharp[near]),
        float(places[near].mean()),
    )


def peak_signal_to_noise(image: Image, sharp: Image) -> float:
    """PSNR in dB of values in [0, 255]; 100 for equal pictures."""
    error = np.mean((image.astype(np.float64) - sharp.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else 100.0


def _similarity(image: Image, sharp: Image) -> tuple[float, NDArray[np.float64]]:
    """SSIM, and that of each place (H, W, 3); the window is the usual one if it fits."""
    from skimage.metrics import structural_similarity

    height, width = sharp.shape[:2]
    grown = [(0, max(0, 3 - height)), (0, max(0, 3 - width)), (0, 0)]
    image, sharp = (np.pad(one, grown, mode="edge") for one in (image, sharp))
    short = min(sharp.shape[:2])
    window = min(7, short - 1 + short % 2)
    ssim, places = structural_similarity(image, sharp, channel_axis=2, win_size=window, full=True)
    return float(ssim), places[:height, :width]
