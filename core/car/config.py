"""What can be chosen in CaR; thresholds by default are those published for Pascal VOC."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

VisualPrompt = Literal["blur", "gray", "black", "circle", "rectangle", "contour"]
Square = Literal["pad", "stretch", "centre_crop"]

CAM_TEMPLATE = "a clean origami {}."

SEMANTIC_TEMPLATES = (
    CAM_TEMPLATE,
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)

LEAST = {"square_side": 32, "max_side": 1, "max_tokens": 2, "query_batch": 1}

BACKGROUND_QUERIES = tuple(
    "ground land grass tree building wall sky lake water river sea railway railroad helmet cloud "
    "house mountain ocean road rock street valley bridge".split()
)


# Words that the embedded CLIP learned for what is no object.
EMBEDDED_BACKGROUND = (
    "background",
    "plain background",
    "blurred background",
    "wall",
    "floor",
    "ground",
    "landscape",
    "scenery",
    "sky",
    "texture",
    "wallpaper",
    "surface",
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the published code does otherwise than this project; all off, unless parity is asked.

    Args:
        raw_first_step: step 1 makes its maps from the bare words, later steps from templated
            ones; here all steps use the template.
        shared_background: a background word that is also looked for stays in the background,
            where it takes half of the word's probability.
        half_positions: position tables are rounded to float16, also in float32.
        short_boxes: the last row and column of the grid can never be in a box mask.
        wrapped_crf_image: the CRF sees BGR less a mean, wrapped modulo 256, which makes edges
            where there are none; here it sees the picture.
    """

    raw_first_step: bool = False
    shared_background: bool = False
    half_positions: bool = False
    short_boxes: bool = False
    wrapped_crf_image: bool = False

    @classmethod
    def all(cls) -> Published:
        return cls(**{one.name: True for one in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class SamMatching:
    """How SAM's masks replace CaR's (the published code's ``post_process.py``).

    Args:
        iom_threshold: SAM's masks whose intersection over the smaller mask is above it are
            united; φ_IoM of the paper, which has 0.7.
        min_cover: a SAM mask that covers less of CaR's mask than this counts as no overlap.
        iou_threshold: the union replaces CaR's mask if their IoU is above this; φ_IoU.
        always_replace: replace without that check, as the published demo does: one SAM mask of
            the whole picture then floods a word.
    """

    iom_threshold: float = 0.7
    min_cover: float = 0.05
    iou_threshold: float = 0.7
    always_replace: bool = False

    def __post_init__(self) -> None:
        for name in ("iom_threshold", "min_cover", "iou_threshold"):
            _check_fraction(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class CarConfig:
    """Settings of one segmentation by words.

    Args:
        mask_threshold: η; a word's map above it is what the visual prompt marks.
        confidence_threshold: θ; a word whose own score is not above it is dropped. Its meaning
            hangs on the number of words (the score is a softmax over them).
        box_threshold: λ; the gradCAM above it gives the boxes that refinement draws from.
        background_exponent: β; background = (1 − highest map)^β.
        visual_prompts: how a mask is shown to the classifier, drawn together.
        background_queries: what the picture may also show and nobody asked for.
        cam_template: wraps words for the maps.
        templates: wrap words for the scores; (): ``cam_template`` alone and its softmax as it
            is, as for referring expressions.
        presence_threshold: also drop a word to which its marked picture has less probability
            than this, among it and the background words; so that one word, which always has
            score 1, can be absent. None: no such check, and the best word always stays.
        recurrence: drop words and look again; False: one step, nothing dropped by its score.
        refine: attention-based refinement of the maps.
        use_crf: dense CRF at the end, where pydensecrf is installed.
        skip_last_block: the classifier's features are taken one block early. None: for published
            weights, whose figures were made so, and not for this project's own.
        square: how a picture comes into the classifier's square. The published code crops, so
            that the ends of a long picture never count.
        square_side: of that square, px, in whole patches. None: as the classifier was trained.
        max_side: pictures with a longer side are worked on in this size; masks are enlarged.
        max_tokens: the proposal generator sees a larger picture reduced to so many tokens; its
            memory grows with their square.
        query_batch: words that are worked on at once, which bounds the memory.
        sam: how SAM's masks are matched, where they are given.
        published: deviations of the published code to keep.

    Raises:
        ValueError: a number is out of its range, or a name unknown.
    """

    mask_threshold: float = 0.4
    confidence_threshold: float = 0.6
    box_threshold: float = 0.4
    background_exponent: float = 1.0
    visual_prompts: tuple[VisualPrompt, ...] = ("circle", "blur")
    background_queries: tuple[str, ...] = BACKGROUND_QUERIES
    cam_template: str = CAM_TEMPLATE
    templates: tuple[str, ...] = SEMANTIC_TEMPLATES
    presence_threshold: float | None = 0.2
    recurrence: bool = True
    refine: bool = True
    use_crf: bool = True
    skip_last_block: bool | None = None
    square: Square = "pad"
    square_side: int | None = None
    max_side: int | None = 1024
    max_tokens: int | None = 2305  # 768 x 768 px in patches of 16
    query_batch: int = 16
    sam: SamMatching = field(default_factory=SamMatching)
    published: Published = field(default_factory=Published)

    def __post_init__(self) -> None:
        for name in ("mask_threshold", "confidence_threshold", "box_threshold"):
            _check_fraction(name, getattr(self, name))
        if self.presence_threshold is not None:
            _check_fraction("presence_threshold", self.presence_threshold)
        if self.background_exponent <= 0:
            raise ValueError(f"background_exponent is {self.background_exponent}; it must be > 0")
        if unknown := set(self.visual_prompts) - set(get_args(VisualPrompt)):
            raise ValueError(
                f"visual_prompts has {', '.join(sorted(unknown))}; "
                f"known are {', '.join(get_args(VisualPrompt))}"
            )
        if self.square not in get_args(Square):
            raise ValueError(f"square is {self.square!r}; it must be one of {get_args(Square)}")
        for template in (self.cam_template, *self.templates):
            if "{}" not in template:
                raise ValueError(f"the template {template!r} has no {{}} for the word")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")

    @classmethod
    def parity(cls, **changes: Any) -> CarConfig:
        """The published code, with every deviation that can be told from its output."""
        return cls(**changes).as_published()

    @classmethod
    def embedded(cls) -> CarConfig:
        """For the embedded CLIP: pictures at the size of what it learned from, 32 x 32 patches.

        Tuned on scenes like those it was trained on. It knows other backgrounds than published
        CLIPs, was shown what is blurred and grey, and its attention does not keep to objects, so
        that refinement by it harms the maps.
        """
        return cls(
            mask_threshold=0.5,
            background_queries=EMBEDDED_BACKGROUND,
            visual_prompts=("blur", "gray"),
            refine=False,
            square_side=192,
            max_side=256,
            max_tokens=1025,
        )

    def as_published(self) -> CarConfig:
        """The same settings, run as the published code runs them."""
        return replace(
            self,
            presence_threshold=None,
            skip_last_block=True,
            square="centre_crop",
            square_side=None,
            max_side=None,
            max_tokens=None,
            published=Published.all(),
        )


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be 0 to 1")
