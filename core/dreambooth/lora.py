"""What is trained: adapters (LoRA) beside frozen weights, or all weights; and both as files.

Adapters are peft's, in diffusers' own file format, so that any StableDiffusionPipeline takes them
by ``load_lora_weights``. Full weights are folders as ``save_pretrained`` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core.dreambooth.model import DiffusionModel, private_copy
from core.dreambooth.randomness import own_randomness
from core.errors import PromptError

if TYPE_CHECKING:
    from core.dreambooth.config import DreamBoothConfig

LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name for it
PARTS = ("unet", "text_encoder")


class Denoiser(nn.Module):
    """U-Net and, where it is trained, text encoder, as one module to optimise.

    Args:
        channels: of a latent; what some networks predict behind them, a variance, is dropped.
    """

    def __init__(self, unet: nn.Module, text_encoder: nn.Module | None, channels: int) -> None:
        super().__init__()
        self.unet: Any = unet
        self.text_encoder: Any = text_encoder
        self.channels = channels

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """Predict (N, C, h, w).

        Args:
            noisy: latents (N, C, h, w).
            condition: hidden states (N, T, D) of the prompts; their tokens (N, T) where the text
                encoder is trained.
        """
        if self.text_encoder is not None:
            condition = self.text_encoder(condition)[0]  # (N, T, D)
        return self.unet(noisy, timesteps, condition).sample[:, : self.channels]

    @property
    def parts(self) -> dict[str, Any]:
        """The trained parts by name."""
        named = {"unet": self.unet, "text_encoder": self.text_encoder}
        return {name: part for name, part in named.items() if part is not None}

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and values of what is optimised, in a fixed order."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                yield name, parameter


def build_denoiser(model: DiffusionModel, config: DreamBoothConfig, dtype: torch.dtype) -> Denoiser:
    """Copy what is to be trained; the model itself stays as it is.

    Frozen weights get ``dtype`` and are shared with the model where they have it already; trained
    ones are float32.

    Raises:
        PromptError: a LoRA target is no layer of the model.
    """
    lora = config.method == "lora"
    parts: dict[str, Any] = {"unet": None, "text_encoder": None}
    for name in PARTS if config.train_text_encoder else PARTS[:1]:
        part = private_copy(
            getattr(model, name), dtype=dtype if lora else torch.float32, share=lora
        )
        if lora:
            targets = config.unet_targets if name == "unet" else config.text_targets
            _add_adapter(part, targets, config, name)
        else:
            part.requires_grad_(True)
        if config.gradient_checkpointing:
            _recompute_activations(part)
        parts[name] = part
    return Denoiser(parts["unet"], parts["text_encoder"], model.channels)


def save_weights(denoiser: Denoiser, folder: Path, method: str) -> None:
    """Write what was trained into a folder, as safetensors."""
    if method == "full":
        for name, part in denoiser.parts.items():
            part.save_pretrained(folder / name, safe_serialization=True)
        return
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    arguments: dict[str, Any] = {}
    for name, part in denoiser.parts.items():
        weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(part))
        arguments[f"{name}_lora_layers"] = {k: v.detach().cpu() for k, v in weights.items()}
        # Carries alpha, which diffusers would otherwise take to be the rank.
        arguments[f"{name}_lora_adapter_metadata"] = _plain(part.peft_config["default"].to_dict())
    StableDiffusionPipeline.save_lora_weights(folder, weight_name=LORA_FILE, **arguments)


def load_weights_into(denoiser: Denoiser, folder: Path, method: str) -> None:
    """Read weights that ``save_weights`` wrote, to go on training them.

    Raises:
        PromptError: they are damaged or of another kind.
    """
    try:
        if method == "full":
            for name, part in denoiser.parts.items():
                source = type(part).from_pretrained(folder / name, use_safetensors=True)
                part.load_state_dict(source.state_dict())
            return
        _load_adapters(denoiser, folder / LORA_FILE)
    except Exception as error:  # parsers raise nearly anything on damaged files
        raise PromptError(
            f"The weights in {folder.name} are damaged or of another model: choose another "
            "checkpoint, or begin anew."
        ) from error


def attach(model: DiffusionModel, folder: Path, method: str, dtype: torch.dtype) -> Any:
    """A pipeline of the model with fine-tuned weights, which leaves the model as it is.

    Args:
        dtype: of the frozen weights.

    Raises:
        PromptError: the weights are missing, damaged, or do not fit the model.
    """
    try:
        if method == "full":
            return _attach_full(model, folder, dtype)
        pipeline = model.pipeline(
            unet=private_copy(model.unet, dtype=dtype),
            text_encoder=private_copy(model.text_encoder, dtype=dtype),
        )
        if not (folder / LORA_FILE).is_file():
            raise FileNotFoundError(LORA_FILE)
        with own_randomness(0, model.device):  # peft fills adapters with noise before it reads
            pipeline.load_lora_weights(folder, weight_name=LORA_FILE, use_safetensors=True)
        pipeline.unet.eval()
        pipeline.text_encoder.eval()
        return pipeline
    except Exception as error:  # parsers raise nearly anything on damaged files
        raise PromptError(
            "The subject's weights are missing, damaged, or of another model: train it again with "
            "this one."
        ) from error


def _add_adapter(part: Any, targets: tuple[str, ...], config: DreamBoothConfig, name: str) -> None:
    from peft import LoraConfig

    adapter = LoraConfig(
        r=config.rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # a float works as well
        lora_dropout=0.0,
        init_lora_weights="gaussian",
        target_modules=list(targets),
    )
    device = next(part.parameters()).device
    try:
        with own_randomness(config.seed, device, "adapter", name):
            part.add_adapter(adapter)
    except ValueError as error:  # none of the targets is there
        raise PromptError(
            f"None of the layers {', '.join(targets)} is in the model's {name}: name others."
        ) from error
    for parameter in part.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _load_adapters(denoiser: Denoiser, path: Path) -> None:
    from diffusers.utils import convert_unet_state_dict_to_peft
    from diffusers.utils.state_dict_utils import convert_state_dict_to_peft
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    written = load_file(path)
    for name, part in denoiser.parts.items():
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in written.items()
            if key.startswith(f"{name}.")
        }
        convert = convert_unet_state_dict_to_peft if name == "unet" else convert_state_dict_to_peft
        weights = convert(own)
        if weights.keys() != get_peft_model_state_dict(part).keys():
            raise ValueError(f"{path.name} holds other layers")
        set_peft_model_state_dict(part, weights, adapter_name="default")


def _attach_full(model: DiffusionModel, folder: Path, dtype: torch.dtype) -> Any:
    """Whole fine-tuned parts in the place of the model's."""
    parts = {}
    for name in PARTS:
        part = getattr(model, name)
        if (folder / name).is_dir():
            loaded = type(part).from_pretrained(folder / name, use_safetensors=True)
            parts[name] = loaded.to(device=model.device, dtype=dtype).eval()
        elif name == "unet":
            raise FileNotFoundError(name)
        else:
            parts[name] = private_copy(part, dtype=dtype)
    return model.pipeline(**parts)


def _recompute_activations(part: Any) -> None:
    if hasattr(part, "enable_gradient_checkpointing"):
        part.enable_gradient_checkpointing()
    else:
        part.gradient_checkpointing_enable({"use_reentrant": False})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """peft's settings as JSON values, in one order."""
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in values.items()
        if value is not None
    }
