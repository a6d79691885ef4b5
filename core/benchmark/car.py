"""CaR: our path against the published code's way of doing it, same weights, same settings.

That way: the image tower at every step, its last block forward and backward for each word, the
affinity and its square for each word, texts one by one at every step, and the marked pictures
encoded anew for each of the 15 templates. Both sides run with every published deviation
(``CarConfig.parity``) and no limit on tokens; ours forgets all texts before each run, and in the
reference's favour its background words are encoded once, outside of the timing.

With random weights one word survives the first step. At 512 px the published way takes 100 s of one
core and ours 30, most of it for the gradients; at 256 px 8 and 2.6. Expect a quarter of an
hour on two cores.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from core.benchmark._car_published import PublishedPath, PublishedResult
from core.benchmark.harness import OutputsDiffer, check_close, environment, peak_memory_mib
from core.benchmark.sam import Bench, picture
from core.car.config import CarConfig
from core.car.pipeline import segment_text
from core.car.results import CarResult
from core.clip.build import build_clip, build_from_entry, embedded_tokenizer, with_tokenizer
from core.clip.model import ClipModel
from core.clip.text import forget_texts
from core.engine.device import describe, pick_device
from core.models.catalogue import catalogue
from core.models.loading import find_local, read_state_dict
from core.reports import Report
from core.settings import settings
from core.stickers.objects import load_objects

SEED = 0
SHARPNESS = 3.0  # of the random weights' attention
MODEL = "clip_embedded"
SIZE, SMALL_SIZE = (512, 512), (256, 256)
WORDS, FEW_WORDS = 20, 5
MEMORY_WORDS = (20, 100, 200)
MMAP_THRESHOLD, LARGE_BLOCK = -3, 2**20  # glibc's M_MMAP_THRESHOLD, and bytes
MAP_TOLERANCE = 1e-3
LABEL_TOLERANCE = 1e-3  # share of the pixels
CONFIG = CarConfig.parity()
BARS = {"car_speedup": 5.0, "memory_growth_mib": 32.0}


def run(limit: int | None) -> Report:
    """Measure all cases; figures are ratios reference over ours, and MiB.

    Args:
        limit: at most so many pairs of each case.

    Raises:
        OutputsDiffer: a map is not what the published way computes.
    """
    bench = Bench(pick_device(settings.device), limit, [])
    model, weights = embedded_clip(bench.device)
    one_step = replace(CONFIG, recurrence=False)
    figures = {
        "car_speedup": measure(bench, model, SIZE, WORDS, CONFIG),
        "car_256_speedup": measure(bench, model, SMALL_SIZE, WORDS, CONFIG),
        "car_256_few_words_speedup": measure(bench, model, SMALL_SIZE, FEW_WORDS, CONFIG),
        "car_256_one_step_speedup": measure(bench, model, SMALL_SIZE, WORDS, one_step),
        "car_256_known_words_speedup": measure(
            bench, model, SMALL_SIZE, WORDS, CONFIG, forget=False
        ),
    }
    memory = measure_memory()
    figures |= memory_figures(memory)
    details = {
        "rows": bench.rows,
        "memory": {"size": SMALL_SIZE, "query_batch": CONFIG.query_batch, "mib": memory},
        "bars": BARS,
        "weights": weights,
        "pairs_limited_to": limit,
        "environment": environment(bench.device),
    }
    data = "an example picture" + (f", {limit} pairs" if limit else "")
    models = [f"{MODEL} ({weights})"]
    return Report("benchmark car", models, data, describe(bench.device), figures, details)


def embedded_clip(device: torch.device) -> tuple[ClipModel, str]:
    """The embedded CLIP, and whether its weights are the shipped ones."""
    entry = catalogue().get(MODEL)
    if entry is not None and (path := find_local(entry)):
        clip = build_from_entry(entry, read_state_dict(path))
        return with_tokenizer(entry, clip.to(device)), "shipped weights"
    torch.manual_seed(SEED)
    clip = build_clip().eval().requires_grad_(False)
    for block in clip.visual.transformer.resblocks:
        # Freshly drawn, all tokens attend alike, and stretching the maps shows the rounding.
        block.attn.in_proj_weight[: 2 * block.attn.embed_dim] *= SHARPNESS  # queries and keys
    weights = f"random, seed {SEED}: its weights are not here"
    return ClipModel(clip.to(device), embedded_tokenizer(), id=MODEL), weights


def measure(
    bench: Bench,
    model: ClipModel,
    size: tuple[int, int],
    words: int,
    config: CarConfig,
    *,
    forget: bool = True,
) -> float:
    """Some words in a picture of a size (H, W), everything included.

    Args:
        forget: our side has to encode all texts anew, as for words never asked before.
    """
    image, asked = picture(size), words_of(words)
    published = PublishedPath(model, model, config)

    def theirs() -> PublishedResult:
        return published.segment(image, asked)

    def ours() -> CarResult:
        if forget:
            forget_texts(model)
        return segment_text(model, model, image, asked, config)

    result = ours()
    check = check_result(result, theirs())
    case = f"{words} words at {size[1]}x{size[0]} px, live {[len(s.live) for s in result.steps]}"
    case += "" if forget else ", texts known before"
    return bench.compare(case, check, theirs, ours).ratio


def words_of(count: int) -> list[str]:
    """Names of the object table, spread over it."""
    names = [item.name for item in load_objects().values()]
    return [names[index] for index in np.linspace(0, len(names) - 1, count).astype(int)]


def check_result(ours: CarResult, reference: PublishedResult) -> str:
    """Compare the words of each step, its maps, and the labels. Raises OutputsDiffer."""
    live = [list(step.live) for step in ours.steps]
    if live != reference.live:
        raise OutputsDiffer(f"live words differ: {live} and {reference.live}")
    size = ours.segmentation.size
    ours_maps, their_maps = (
        torch.from_numpy(np.concatenate(maps))
        for maps in (
            [[step.proposal(row, size) for row in range(len(step.live))] for step in ours.steps],
            reference.maps,
        )
    )
    differing = float((labels_of(ours) != reference.labels).mean())
    if differing > LABEL_TOLERANCE:
        raise OutputsDiffer(f"labels differ in {differing:.2%} of the pixels")
    return check_close("maps", ours_maps, their_maps, MAP_TOLERANCE)


def labels_of(result: CarResult) -> NDArray[np.intp]:
    """(H, W): 0 for background, k for the k-th word that stayed."""
    kept = result.steps[-1].kept
    labels = np.zeros(result.segmentation.size, np.intp)
    for number, mask in zip(result.segmentation.ids or (), result.segmentation.masks, strict=True):
        labels[mask] = kept.index(number - 1) + 1
    return labels


def measure_memory() -> dict[str, float]:
    """Peak memory of our side with ever more words, and of the reference with the fewest, MiB.

    Ours once more with glibc left to itself ("resident"): it keeps ever larger freed blocks.
    """
    target, few = "core.benchmark.car:segment_once", str(MEMORY_WORDS[0])
    asked = [(side, str(count)) for side in ("ours", "resident") for count in MEMORY_WORDS]
    return {
        f"{side}_{count}_words": peak_memory_mib(target, side, count)
        for side, count in [*asked, ("reference", few)]
    }


def memory_figures(memory: dict[str, float]) -> dict[str, float]:
    """How much the peak grows from the fewest to the most words, and the reference's over ours."""
    few, most = MEMORY_WORDS[0], MEMORY_WORDS[-1]
    growth = {
        side: memory[f"{side}_{most}_words"] - memory[f"{side}_{few}_words"]
        for side in ("ours", "resident")
    }
    return {
        "memory_growth_mib": growth["ours"],
        "memory_growth_resident_mib": growth["resident"],
        "memory_ratio": memory[f"reference_{few}_words"] / memory[f"ours_{few}_words"],
    }


def segment_once(side: str, count: str) -> None:
    """Build the model and look for some words in one picture; for a fresh process."""
    if side != "resident":
        hold_allocator()
    model, _ = embedded_clip(pick_device(settings.device))
    image, asked = picture(SMALL_SIZE), words_of(int(count))
    if side == "reference":
        PublishedPath(model, model, CONFIG).segment(image, asked)
    else:
        segment_text(model, model, image, asked, CONFIG)


def hold_allocator() -> None:
    """Let glibc give all large blocks back at once, so that a peak is what is in use."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(MMAP_THRESHOLD, LARGE_BLOCK)
