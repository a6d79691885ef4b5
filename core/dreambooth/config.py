"""What can be chosen in a fine-tuning, and the words that the subject is called by.

Free of torch, for pages. Defaults are those for Stable Diffusion 1.5 on one GPU: a LoRA of rank 8.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from core.errors import PromptError

Method = Literal["lora", "full"]
MaskLoss = Literal["area", "plain", "none"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

PRESETS = {"quick": "quick look", "good": "good", "paper": "paper"}

_CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("lora", "full"),
    "mask_loss": ("area", "plain", "none"),
    "schedule": ("constant", "linear", "cosine"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
}
# Least and greatest value; None: no bound on that side.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "rank": (1, 256),
    "alpha": (1e-3, None),
    "learning_rate": (1e-8, 1.0),
    "steps": (1, 100_000),
    "batch_size": (1, 64),
    "warmup_steps": (0, None),
    "weight_decay": (0, None),
    "max_gradient_norm": (1e-6, None),
    "resolution": (32, 2048),
    "crops_per_picture": (1, 64),
    "prior_weight": (0, None),
    "prior_pictures": (1, 5000),
    "min_area": (1e-6, 1),
    "dilate": (0, 64),
    "background_weight": (0, 1),
    "snr_gamma": (1e-3, None),
    "offset_noise": (0, 1),
    "cache_mib": (1, None),
    "seed": (0, 2**63 - 1),
    "checkpoint_steps": (1, None),
    "checkpoints_kept": (1, None),
    "sample_steps": (1, None),
    "inference_steps": (1, 1000),
    "guidance_scale": (0, 50),
}
_FRACTIONS = {
    "alpha",
    "learning_rate",
    "weight_decay",
    "max_gradient_norm",
    "prior_weight",
    "min_area",
    "background_weight",
    "snr_gamma",
    "offset_noise",
    "guidance_scale",
}
_OPTIONAL = {"alpha", "resolution", "snr_gamma", "sample_steps"}
# They change how a run looks or is kept, not the weights that it ends with.
_WITHOUT_EFFECT = {
    "checkpoint_steps",
    "checkpoints_kept",
    "sample_steps",
    "sample_prompts",
    "inference_steps",
    "guidance_scale",
    "cache_mib",
}

MAX_WORD_CHARS = 40
MAX_PROMPT_CHARS = 400


@dataclass(frozen=True, kw_only=True)
class DreamBoothConfig:
    """Settings of one fine-tuning.

    Args:
        method: "lora" trains adapters beside frozen weights, "full" all weights of the U-Net.
        rank, alpha: of the adapters, whose scale is alpha / rank; alpha None: as rank.
        unet_targets, text_targets: names of the layers that get an adapter.
        train_text_encoder: as well as the U-Net, by the same loss.
        learning_rate: of AdamW; about 1e-4 for a LoRA, 5e-6 for full fine-tuning.
        batch_size: pictures of the subject in a step; as many class pictures come on top.
        schedule, warmup_steps: of the learning rate.
        resolution: px of a training picture's side; None: what the model was made for.
        random_crop: else the crop is centred.
        flip: mirror at random; wrong for anything with writing on it.
        crops_per_picture: fixed crops of each picture whose latents are cached.
        prior: also train on the class's own pictures, so that the word keeps its meaning.
        prior_weight: lambda, weight of their loss.
        prior_pictures: how many there are; missing ones are drawn by the untouched model.
        mask_loss: "area": each picture's masked error is divided by its mask's area; "plain":
            by the whole picture's, as in public masked trainers; "none": plain DreamBooth.
        min_area: least share of a picture that "area" divides by.
        dilate: grow the mask by so many latent cells.
        background_weight: of the error outside the mask; 1 is plain DreamBooth.
        snr_gamma: of min-SNR weighting (5 is usual); None: off.
        offset_noise: strength of noise that is constant over a picture (0.1 is usual).
        precision: of the frozen weights and of computing; trained weights are float32.
        gradient_checkpointing: recompute activations, which trades a third of speed for memory.
        adam_8bit: optimiser state in 8 bit where bitsandbytes and a GPU are there.
        cache_latents: encode pictures and prompts once; else at each step, with fresh crops.
        cache_mib: most memory for that; above it, pictures are encoded at each step.
        seed: of everything random.
        checkpoint_steps, checkpoints_kept: a checkpoint every so many steps, the last so many.
        sample_steps: draw ``sample_prompts`` every so many steps; None: never.
        sample_prompts: with "{}" in the place of the subject; always from the same seeds.
        inference_steps, guidance_scale: of everything that is drawn.

    Raises:
        PromptError: a value is out of its range.
    """

    method: Method = "lora"
    rank: int = 8
    alpha: float | None = None
    unet_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
    text_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")
    train_text_encoder: bool = False
    learning_rate: float = 1e-4
    steps: int = 500
    batch_size: int = 1
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    weight_decay: float = 1e-2
    max_gradient_norm: float = 1.0
    resolution: int | None = None
    random_crop: bool = True
    flip: bool = False
    crops_per_picture: int = 4
    prior: bool = True
    prior_weight: float = 1.0
    prior_pictures: int = 100
    mask_loss: MaskLoss = "area"
    min_area: float = 0.02
    dilate: int = 0
    background_weight: float = 0.0
    snr_gamma: float | None = None
    offset_noise: float = 0.0
    precision: Precision = "auto"
    gradient_checkpointing: bool = True
    adam_8bit: bool = True
    cache_latents: bool = True
    cache_mib: int = 2048
    seed: int = 0
    checkpoint_steps: int = 100
    checkpoints_kept: int = 2
    sample_steps: int | None = 100
    sample_prompts: tuple[str, ...] = ("a photo of {}", "a photo of {} on a beach")
    inference_steps: int = 25
    guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise PromptError(
                    f"The setting {name} is {getattr(self, name)!r}: choose {', '.join(allowed)}."
                )
        for name, bounds in _RANGES.items():
            _check_range(name, getattr(self, name), *bounds)
        if not self.unet_targets or self.train_text_encoder and not self.text_targets:
            raise PromptError("There is no layer to adapt: name at least one target.")
        for prompt in self.sample_prompts:
            check_prompt(prompt)

    @property
    def lora_alpha(self) -> float:
        """`alpha`, never None."""
        return self.rank if self.alpha is None else self.alpha

    @property
    def digest(self) -> str:
        """16 hex digits that differ when a setting does which the trained weights depend on."""
        values = {k: v for k, v in self.to_dict().items() if k not in _WITHOUT_EFFECT}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def preset(cls, name: str, model_set: str = "full", **changes: Any) -> DreamBoothConfig:
        """Settings by a key of `PRESETS`, for a model set of the catalogue.

        "quick" shows whether it works at all, "good" is for use, "paper" is full fine-tuning at
        the paper's rates (for the embedded model with fewer steps and class pictures).

        Raises:
            PromptError: no such preset.
        """
        if name not in PRESETS:
            raise PromptError(f"There is no preset {name!r}: choose one of {', '.join(PRESETS)}.")
        values = (_EMBEDDED if model_set == "embedded" else _FULL)[name]
        return replace(cls(**values), **changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DreamBoothConfig:
        """Read JSON values. Raises PromptError on an unknown name or a value out of range."""
        known = {one.name for one in fields(cls)}
        if unknown := set(values) - known:
            raise PromptError(f"There is no setting {', '.join(sorted(unknown))}.")
        read: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**read)

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which ``from_dict`` makes the same."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


_FULL: dict[str, dict[str, Any]] = {
    "quick": {"steps": 150, "prior": False, "sample_steps": 50, "checkpoint_steps": 50},
    "good": {"steps": 500},
    "paper": {
        "method": "full",
        "learning_rate": 5e-6,
        "steps": 1000,
        "prior_pictures": 1000,
        "checkpoint_steps": 250,
    },
}
# A model of some million parameters wants larger rates and ranks, and recomputing saves nothing.
_SMALL: dict[str, Any] = {
    "gradient_checkpointing": False,
    "rank": 16,
    "learning_rate": 5e-4,
    "sample_prompts": ("a photo of {}", "a photo of {} on grass"),
    "inference_steps": 20,
    "guidance_scale": 4.0,
}
_EMBEDDED: dict[str, dict[str, Any]] = {
    "quick": {**_SMALL, "steps": 150, "prior_pictures": 8, "sample_steps": 50},
    "good": {**_SMALL, "steps": 400, "batch_size": 2, "prior_pictures": 24},
    "paper": {
        **_SMALL,
        "method": "full",
        "learning_rate": 5e-5,
        "steps": 600,
        "batch_size": 2,
        "prior_pictures": 48,
    },
}


@dataclass(frozen=True)
class Subject:
    """What the thing is called: a rare word for this one, and the noun of its class.

    The noun matters as much as the pictures (DreamBooth, table 4: without one, DINO falls from
    0.744 to 0.303).

    Args:
        identifier: [V], such as "sks": rare, short, no word of the language.
        class_noun: such as "dog" or "alarm clock".
        template: of the training prompts, with "{}" in the place of the subject.

    Raises:
        PromptError: a word is missing or too long, or the template has no single "{}".
    """

    identifier: str
    class_noun: str
    template: str = "a photo of {}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "identifier", self.identifier.strip())
        object.__setattr__(self, "class_noun", " ".join(self.class_noun.split()))
        if not self.class_noun:
            raise PromptError("Say what kind of thing it is, such as dog or clock.")
        if not self.identifier:
            raise PromptError("Give the subject a rare word of its own, such as sks.")
        if len(self.identifier.split()) > 1:
            raise PromptError(
                f"The identifier {self.identifier!r} has several words: give one rare word."
            )
        for word in (self.identifier, self.class_noun):
            if len(word) > MAX_WORD_CHARS or set("{}") & set(word):
                raise PromptError(
                    f"The word {word[:MAX_WORD_CHARS]!r} is not usable: at most {MAX_WORD_CHARS} "
                    "letters, without braces."
                )
        if self.template.count("{}") != 1:
            raise PromptError(
                f"The template {self.template!r} needs one {{}} where the subject is named."
            )
        check_prompt(self.template)

    @property
    def name(self) -> str:
        """The subject in a prompt: "a sks dog"."""
        return f"{_article(self.identifier)} {self.identifier} {self.class_noun}"

    @property
    def instance_prompt(self) -> str:
        """The prompt of the subject's pictures: "a photo of a sks dog"."""
        return self.template.replace("{}", self.name)

    @property
    def class_prompt(self) -> str:
        """The prompt of the class's pictures: "a photo of a dog"."""
        return self.template.replace("{}", f"{_article(self.class_noun)} {self.class_noun}")

    def fill(self, prompt: str) -> str:
        """Put the subject in the place of each "{}"; a prompt without one stays as it is.

        Raises:
            PromptError: the prompt is empty or too long.
        """
        return check_prompt(prompt).replace("{}", self.name)


def check_prompt(prompt: str) -> str:
    """Return a prompt without outer spaces. Raises PromptError if it is empty or too long."""
    prompt = prompt.strip()
    if not prompt:
        raise PromptError("The prompt is empty: say what to draw.")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise PromptError(f"The prompt has {len(prompt)} letters; the limit is {MAX_PROMPT_CHARS}.")
    return prompt


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _check_range(name: str, value: Any, low: float | None, high: float | None) -> None:
    if value is None and name in _OPTIONAL:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise PromptError(f"The setting {name} is {value!r}: give a number.")
    if name not in _FRACTIONS and not isinstance(value, int):
        raise PromptError(f"The setting {name} is {value!r}: give a whole number.")
    if (low is not None and value < low) or (high is not None and value > high):
        limits = [f"at least {low:g}" if low is not None else ""]
        limits += [f"at most {high:g}" if high is not None else ""]
        raise PromptError(
            f"The setting {name} is {value:g}: it must be {' and '.join(filter(None, limits))}."
        )
