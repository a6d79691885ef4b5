"""The golden case, and a tiny network with random weights and a closed vocabulary."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from core.pixellm import generation
from core.pixellm.chat_model import ChatModel
from core.pixellm.config import DecoderConfig, LanguageConfig, PixelLMConfig, VisionConfig
from core.pixellm.model import PixelLM
from core.pixellm.tokenizer import ChatTokenizer

GOLDEN_FILE = Path(__file__).parents[2] / "data" / "golden" / "pixellm_case1.npz"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN_FILE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_network(golden) -> PixelLM:
    """The golden case's modules; tower and language model are random and not part of it."""
    sizes = json.loads(str(golden["config_json"]))
    config = PixelLMConfig(
        vision=VisionConfig(
            image_size=sizes["vision_input"],
            patch_size=sizes["patch"],
            hidden_size=sizes["clip_hidden"],
            intermediate_size=32,
            num_layers=2,
            num_heads=2,
            feature_layers=(2, 1),
        ),
        language=LanguageConfig(
            vocab_size=210,
            hidden_size=sizes["llm_hidden"],
            intermediate_size=48,
            num_layers=1,
            num_heads=2,
        ),
        decoder=DecoderConfig(
            hidden_size=sizes["decoder_dim"],
            num_heads=sizes["decoder_heads"],
            depth=sizes["decoder_depth"],
            mlp_dim=sizes["decoder_mlp"],
            extra_mask_tokens=sizes["num_multimask_outputs"],
        ),
        tokens_per_scale=sizes["tokens_per_scale_N"],
    )
    network = PixelLM(config)
    state = {
        name.removeprefix("state/"): torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith("state/")
    }
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith(("vision_tower.", "language_model.")) for name in missing)
    return network.eval().requires_grad_(False)


WORDS = (
    "USER: ASSISTANT: what is the cup , . and a clock are it sure there no such thing here on "
    "table you can use segment in this image please"
).split()
CONTROL = ["<s>", "</s>", "<unk>", *(f"[SEG{i}]" for i in range(6)), "<im_start>", "<im_end>"]


def small_config(**changes) -> PixelLMConfig:
    """A network of every part at its smallest: 4 x 4 patches, masks of 16 x 16."""
    sizes = {
        "vision": VisionConfig(
            image_size=32,
            trained_size=32,
            patch_size=8,
            hidden_size=12,
            intermediate_size=16,
            num_layers=3,
            num_heads=2,
            feature_layers=(-2, 1),
        ),
        "language": LanguageConfig(
            vocab_size=len(CONTROL) + len(WORDS),
            hidden_size=16,
            intermediate_size=24,
            num_layers=2,
            num_heads=2,
            max_position_embeddings=256,
        ),
        "decoder": DecoderConfig(
            hidden_size=32, num_heads=2, mlp_dim=16, extra_mask_tokens=0, mask_in_chans=4
        ),
        "template": "plain",
    }
    return PixelLMConfig(**sizes | changes)


def word_tokenizer():
    """Words and marks of a closed vocabulary; what it does not know is <unk>."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate([*CONTROL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.add_tokens([word for word in CONTROL if word.startswith("[")])
    fast.add_special_tokens({"additional_special_tokens": ["<im_start>", "<im_end>"]})
    return fast


def small_model(seed: int = 13, **changes) -> ChatModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PixelLM(small_config(**changes)).eval().requires_grad_(False)
    for parameter in network.parameters():  # transformers starts so small that all looks alike
        if parameter.ndim > 1:
            parameter.mul_(4)
    return ChatModel(network, ChatTokenizer(word_tokenizer(), network.config), id="small")


@pytest.fixture(scope="session")
def model() -> ChatModel:
    return small_model()


@pytest.fixture
def picture() -> np.ndarray:
    """RGB (30, 64): more than half of the square input is padding."""
    random = np.random.default_rng(4)
    return random.integers(0, 256, (30, 64, 3), dtype=np.uint8)


GROUP = " ".join(f"[SEG{i}]" for i in range(6))


@pytest.fixture
def script(monkeypatch, model):
    """Make the model write given words, "SEG" for a whole group; the states stay its own."""

    def write(*answers: str) -> list[int]:
        text = " ".join(answers).replace("SEG ", GROUP + " ")
        ids = model.tokenizer.encode(text)
        tokens = iter(ids)
        monkeypatch.setattr(generation, "choose_token", lambda *_: next(tokens))
        return ids

    return write
