"""PixelLM: an answer from the cache against the published code's way, same weights, same prompt.

That way: for every new token the image tower, the projectors and the language model run over the
picture and all tokens so far. Both sides write the same number of tokens, whatever they are, and
make one mask of the first group's worth of hidden states; tokens, states and mask have to agree.

Once at the 7B layout's proportions: its 1024 patches, 256 image tokens and head sizes, an eighth
of its widths and a quarter of its depths, with random weights. Once on the embedded model, of
which the waiting times of a visitor are measured too. Expect ten minutes on two cores.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.benchmark.harness import OutputsDiffer, check_close, environment
from core.benchmark.sam import Bench
from core.engine.device import describe, pick_device
from core.images import load
from core.models.catalogue import PROJECT, catalogue
from core.models.loading import find_local, read_state_dict
from core.pixellm.build import build_from_entry, with_tokenizer
from core.pixellm.chat_model import ChatModel
from core.pixellm.codebook import IMAGE_TOKEN
from core.pixellm.config import DecoderConfig, LanguageConfig, PixelLMConfig, VisionConfig
from core.pixellm.generation import Decoding, GenerationOptions, generate
from core.pixellm.model import PictureFeatures, PixelLM
from core.pixellm.pipeline import start, stream
from core.pixellm.preprocessing import preprocess
from core.pixellm.results import Finished, TextPiece
from core.pixellm.tokenizer import load_tokenizer
from core.reports import Report
from core.settings import settings

SEED = 0
MODEL = "pixellm_embedded"
PICTURE = PROJECT / "assets" / "examples" / "chat" / "table.jpg"
TOKENIZER = PROJECT / "assets" / "models" / "pixellm_tokenizer.json"
QUESTION = "I am hungry. What can I eat and what would I cut it with?"
NEW_TOKENS = 64
PROMPT_TOKENS = 60  # of a first question in the published template
REPEATS = 7
TOLERANCE = 1e-3
BARS = {"generation_speedup": 5.0, "first_token_s": 1.5, "answer_s": 4.0}
LAYOUT_7B = PixelLMConfig(
    vision=VisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_layers=6,
        num_heads=2,
        position_table="reference",
        feature_layers=(5, 3),
    ),
    language=LanguageConfig(
        vocab_size=4001,
        hidden_size=512,
        intermediate_size=1376,
        num_layers=8,
        num_heads=4,
    ),
    decoder=DecoderConfig(hidden_size=32, num_heads=4, mlp_dim=256, mask_in_chans=4),
)


@dataclass(frozen=True, eq=False)
class Written:
    """What one side wrote.

    Args:
        states: hidden states that predicted the tokens, (T, D).
        mask: fused logits (h, w) of the first states as one group.
    """

    tokens: list[int]
    states: Tensor
    mask: Tensor


def run(limit: int | None) -> Report:
    """Measure all cases; speed-ups are ratios reference over ours, waiting times are seconds.

    Args:
        limit: at most so many pairs and repeats.

    Raises:
        OutputsDiffer: a token, a state or a mask is not what the published way computes.
    """
    bench = Bench(pick_device(settings.device), limit, [])
    image = load(PICTURE).image
    large = random_network(LAYOUT_7B).to(bench.device)
    embedded, weights = embedded_chat(bench.device)
    figures = {
        "generation_speedup": measure(bench, "7B layout", large, image, recode=True),
        "cache_speedup": measure(bench, "7B layout, read once", large, image, recode=False),
        "embedded_generation_speedup": measure(
            bench, "embedded", embedded.network, image, recode=True
        ),
    }
    waits = measure_waits(embedded, image, limit)
    figures |= {name: statistics.median(values) for name, values in waits.items()}
    details = {
        "rows": bench.rows,
        "new_tokens": NEW_TOKENS,
        "waits": waits,
        "bars": BARS,
        "met": {
            name: figures[name] >= bar if "speedup" in name else figures[name] <= bar
            for name, bar in BARS.items()
        },
        "layout": LAYOUT_7B.to_dict(),
        "weights": weights,
        "limited_to": limit,
        "environment": environment(bench.device),
    }
    models = [f"{MODEL} ({weights})", "7B layout at an eighth (random)"]
    data = "an example picture" + (f", {limit} pairs" if limit else "")
    return Report("benchmark pixellm", models, data, describe(bench.device), figures, details)


def random_network(config: PixelLMConfig) -> PixelLM:
    """A network with the same random weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return PixelLM(config).eval().requires_grad_(False)


def embedded_chat(device: torch.device) -> tuple[ChatModel, str]:
    """The embedded PixelLM, and whether its weights are the shipped ones."""
    entry = catalogue().get(MODEL)
    if entry is not None and (path := find_local(entry)):
        network = build_from_entry(entry, read_state_dict(path))
        return with_tokenizer(entry, network.to(device)), "shipped weights"
    from tokenizers import Tokenizer

    config = PixelLMConfig.embedded(Tokenizer.from_file(str(TOKENIZER)).get_vocab_size())
    network = random_network(config).to(device)
    weights = f"random, seed {SEED}: its weights are not here"
    return ChatModel(network, load_tokenizer(TOKENIZER, config), id=MODEL), weights


def measure(
    bench: Bench, case: str, network: PixelLM, image: NDArray[np.uint8], *, recode: bool
) -> float:
    """Compare one answer's generation on both sides.

    Args:
        recode: the reference encodes the picture anew for each token, as the published code does.
    """
    prompt = prompt_of(network.config)

    def theirs() -> Written:
        return write_published(network, image, prompt, recode=recode)

    def ours() -> Written:
        return write_cached(network, image, prompt)

    check = check_written(ours(), theirs())
    side = f"{network.config.image_tokens} image tokens, {len(prompt) - 1} of the prompt"
    return bench.compare(f"{case}: {NEW_TOKENS} new tokens, {side}", check, theirs, ours).ratio


def prompt_of(config: PixelLMConfig) -> list[int]:
    """Random ids of a first question, the picture among them."""
    random = np.random.default_rng(SEED)
    ids = random.integers(0, config.language.vocab_size, PROMPT_TOKENS).tolist()
    return [*ids[:4], IMAGE_TOKEN, *ids[4:]]


@torch.no_grad()
def encode(network: PixelLM, image: NDArray[np.uint8]) -> PictureFeatures:
    """Encode a picture, RGB uint8 (H, W, 3)."""
    return network.encode_picture(*preprocess(image, network.config))


def write_cached(network: PixelLM, image: NDArray[np.uint8], prompt: list[int]) -> Written:
    """Our way: the picture once, then each token from the cache."""
    picture = encode(network, image)
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)
    steps = list(generate(network, Decoding(network, picture), prompt, -1, options))
    return finish(network, picture, [s.token for s in steps], torch.stack([s.state for s in steps]))


@torch.no_grad()
def write_published(
    network: PixelLM, image: NDArray[np.uint8], prompt: list[int], *, recode: bool
) -> Written:
    """The published way: everything again for each token, states from the last pass."""
    picture = encode(network, image)
    tokens: list[int] = []
    for _ in range(NEW_TOKENS):
        if recode and tokens:
            picture = encode(network, image)
        hidden = read_all(network, picture, [*prompt, *tokens])
        tokens.append(int(network.token_logits(hidden[-1]).argmax()))
    return finish(network, picture, tokens, hidden[-NEW_TOKENS:])


def read_all(network: PixelLM, picture: PictureFeatures, ids: list[int]) -> Tensor:
    """Hidden states (T, D) of one pass over picture and ids, without a cache."""
    embeds = network.embed(ids, picture.image_tokens)[None]
    mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    first = ids.index(IMAGE_TOKEN)
    mask[0, first : first + len(picture.token_mask)] = picture.token_mask
    output = network.language_model.model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=torch.arange(embeds.shape[1], device=embeds.device)[None],
        use_cache=False,
    )
    return output.last_hidden_state[0]


@torch.no_grad()
def finish(
    network: PixelLM, picture: PictureFeatures, tokens: list[int], states: Tensor
) -> Written:
    """Make a mask of the first states, whatever their tokens are."""
    size = network.config.scales * network.config.tokens_per_scale
    mask = network.decode(states[None, :size], picture.decoder_features)[0]
    return Written(tokens, states, mask)


def check_written(ours: Written, reference: Written) -> str:
    """Compare tokens, states and masks. Raises OutputsDiffer."""
    if ours.tokens != reference.tokens:
        same = [a == b for a, b in zip(ours.tokens, reference.tokens, strict=True)]
        raise OutputsDiffer(f"token {same.index(False) + 1} of {len(same)} differs")
    states = check_close("states", ours.states, reference.states, TOLERANCE)
    mask = check_close("masks", ours.mask, reference.mask, TOLERANCE)
    return f"{len(ours.tokens)} equal tokens; states: {states}; mask: {mask}"


def measure_waits(
    model: ChatModel, image: NDArray[np.uint8], limit: int | None = None
) -> dict[str, list[float]]:
    """Seconds from a question about a new picture to its first word and to the end of the answer.

    One answer before these warms up.
    """
    waits: dict[str, list[float]] = {"first_token_s": [], "answer_s": [], "answer_tokens": []}
    for repeat in range(1 + min(REPEATS, limit or REPEATS)):
        values = wait_for_answer(model, image)
        if repeat:
            for name, value in values.items():
                waits[name].append(value)
    return waits


def wait_for_answer(model: ChatModel, image: NDArray[np.uint8]) -> dict[str, Any]:
    """Ask one question as the suite does, at most NEW_TOKENS long."""
    begin, first = time.perf_counter(), None
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)
    for event in stream(model, start(model, image), QUESTION, generation=options):
        if first is None and isinstance(event, TextPiece | Finished):
            first = time.perf_counter() - begin
    assert isinstance(event, Finished) and first is not None
    return {
        "first_token_s": first,
        "answer_s": time.perf_counter() - begin,
        "answer_tokens": len(event.result.turn.answer_ids),
    }
