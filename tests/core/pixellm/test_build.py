"""Names and shapes of the published checkpoints, loading, precision, memory, and all refusals."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import save_file

from core.engine.device import lower_precision
from core.errors import ModelUnavailable
from core.models.catalogue import parse_entry
from core.pixellm import build, published
from core.pixellm.build import build_from_entry, build_on_meta, map_published, with_tokenizer
from core.pixellm.config import LanguageConfig, PixelLMConfig, VisionConfig
from core.pixellm.pipeline import encode, segment
from core.pixellm.tokenizer import ChatTokenizer, load_tokenizer
from tests.core.pixellm.conftest import small_config, small_model, word_tokenizer

CPU = torch.device("cpu")


def published_layout(network, positions=None):
    """A network's parameters under the names of the published folder, and those of its tower."""
    rest, tower = {}, {}
    for key, value in network.state_dict().items():
        if key.startswith("vision_tower.clip."):
            tower["vision_model." + key.removeprefix("vision_tower.clip.")] = value
        elif key.startswith("language_model."):
            rest[key.removeprefix("language_model.")] = value
        else:
            rest[f"model.{key}"] = value
    if positions is not None:
        tower["vision_model.embeddings.position_embedding.weight"] = positions
    return rest, tower


def published_shapes(width, layers, inner, vocab=32008):
    """Every parameter of the published folder, written down from its description."""
    c, shapes = 256, {"model.embed_tokens.weight": (vocab, width), "lm_head.weight": (vocab, width)}
    shapes["model.norm.weight"] = (width,)
    for i in range(layers):
        block = f"model.layers.{i}."
        for name in "qkvo":
            shapes[f"{block}self_attn.{name}_proj.weight"] = (width, width)
        shapes[f"{block}mlp.gate_proj.weight"] = shapes[f"{block}mlp.up_proj.weight"] = (
            inner,
            width,
        )
        shapes[f"{block}mlp.down_proj.weight"] = (width, inner)
        shapes[f"{block}input_layernorm.weight"] = (width,)
        shapes[f"{block}post_attention_layernorm.weight"] = (width,)
    for name in ("mm_projector", "out_mm_projector"):
        _linear(shapes, f"model.{name}.0", 2 * width, 1024)
        _linear(shapes, f"model.{name}.2", width, 2 * width)
    _linear(shapes, "model.text_hidden_fcs.0.0", width, width)
    _linear(shapes, "model.text_hidden_fcs.0.2", c, width)
    neck = "model.image_feature_neck."
    shapes |= {f"{neck}0.weight": (c, width, 1, 1), f"{neck}2.weight": (c, c, 3, 3)}
    for index in (1, 3):
        shapes |= {f"{neck}{index}.weight": (c,), f"{neck}{index}.bias": (c,)}
    prompt = "model.prompt_encoder."
    shapes[f"{prompt}pe_layer.positional_encoding_gaussian_matrix"] = (2, 128)
    for name in (
        "no_mask_embed",
        "not_a_point_embed",
        *(f"point_embeddings.{i}" for i in range(4)),
    ):
        shapes[f"{prompt}{name}.weight"] = (1, c)
    for index, shape in {0: (4, 1, 2, 2), 3: (16, 4, 2, 2), 6: (c, 16, 1, 1)}.items():
        shapes[f"{prompt}mask_downscaling.{index}.weight"] = shape
        shapes[f"{prompt}mask_downscaling.{index}.bias"] = shape[:1]
    for index, size in {1: 4, 4: 16}.items():
        for kind in ("weight", "bias"):
            shapes[f"{prompt}mask_downscaling.{index}.{kind}"] = (size,)
    return shapes | _decoder_shapes("model.mask_decoder.", c)


def _decoder_shapes(decoder, c):
    shapes = {
        f"{decoder}iou_token.weight": (1, c),
        f"{decoder}mask_tokens.weight": (4, c),
        f"{decoder}level_embed.weight": (2, c),
        f"{decoder}output_upscaling.0.weight": (c, 32, 2, 2),
        f"{decoder}upsample_2x.0.weight": (c, c, 2, 2),
        f"{decoder}upsample_2x.0.bias": (c,),
        f"{decoder}pe1.positional_encoding_gaussian_matrix": (2, 128),
    }
    for kind in ("weight", "bias"):
        shapes[f"{decoder}output_upscaling.1.{kind}"] = (32,)
        shapes[f"{decoder}upsample_2x.1.{kind}"] = (c,)
    shapes[f"{decoder}output_upscaling.0.bias"] = (32,)
    heads = {f"output_hypernetworks_mlps.{i}": 32 for i in range(4)} | {"iou_prediction_head": 4}
    for name, out in heads.items():
        for layer, size in enumerate((c, c, out)):
            _linear(shapes, f"{decoder}{name}.layers.{layer}", size, c)
    for scale in range(2):
        root = f"{decoder}transformer.{scale}."
        for i in range(2):
            block = f"{root}layers.{i}."
            _attention(shapes, f"{block}self_attn.", c, c)
            for norm in range(1, 5):
                shapes |= {f"{block}norm{norm}.{kind}": (c,) for kind in ("weight", "bias")}
            _attention(shapes, f"{block}cross_attn_token_to_image.", c, c // 2)
            _attention(shapes, f"{block}cross_attn_image_to_token.", c, c // 2)
            _linear(shapes, f"{block}mlp.lin1", 2048, c)
            _linear(shapes, f"{block}mlp.lin2", c, 2048)
        _attention(shapes, f"{root}final_attn_token_to_image.", c, c // 2)
        shapes |= {f"{root}norm_final_attn.{kind}": (c,) for kind in ("weight", "bias")}
    return shapes


def _linear(shapes, name, out, width):
    shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, width), (out,)


def _attention(shapes, name, width, inner):
    for part in "qkv":
        _linear(shapes, f"{name}{part}_proj", inner, width)
    _linear(shapes, f"{name}out_proj", width, inner)


def count(shapes, part):
    return sum(torch.Size(shape).numel() for name, shape in shapes.items() if f".{part}." in name)


@pytest.mark.parametrize(
    ("config", "width", "layers", "inner", "added"),
    [
        (PixelLMConfig.published_7b(), 4096, 32, 11008, 110_958_896),
        (PixelLMConfig.published_13b(), 5120, 40, 13824, 162_870_576),
    ],
)
def test_published_names_and_shapes(config, width, layers, inner, added):
    shapes = published_shapes(width, layers, inner)
    parts = ("mm_projector", "out_mm_projector", "text_hidden_fcs", "image_feature_neck")
    decoder, prompt = count(shapes, "mask_decoder"), count(shapes, "prompt_encoder")
    assert (decoder, prompt) == (7_572_196, 6_476)
    if added:
        assert sum(count(shapes, part) for part in parts) + decoder + prompt == added
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.empty(64, device="meta")
    network = build_on_meta(config)
    clip = clip_shapes()
    clip["vision_model.embeddings.position_ids"] = torch.empty(1, 577, device="meta")
    clip["text_model.final_layer_norm.weight"] = torch.empty(768, device="meta")
    mapped = map_published(state, clip, config)
    published.check_shapes(network, mapped, "PixelLM")
    assert mapped[build.POSITIONS].shape == (1025, 1024)


def clip_shapes():
    """The tower of CLIP ViT-L/14-336 under its published names, on the meta device."""
    tower = build_on_meta(
        replace(small_config(), vision=VisionConfig(image_size=336))
    ).vision_tower.clip
    assert sum(p.numel() for p in tower.parameters()) == 303_507_456
    return {f"vision_model.{name}": value for name, value in tower.state_dict().items()}


def test_embedded_sizes():
    config = PixelLMConfig.embedded()
    network = build_on_meta(config)
    assert sum(p.numel() for p in network.parameters()) < 15_000_000
    assert (config.scales, config.tokens_per_scale) == (2, 3)
    assert (config.image_tokens, config.mask_size) == (64, 64)


def test_configurations_survive_json_and_refuse_what_they_do_not_know():
    for config in (PixelLMConfig.published_13b(), PixelLMConfig.embedded(), small_config()):
        assert PixelLMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(TypeError, match="unknown PixelLMConfig values: colour"):
        PixelLMConfig.from_dict({"colour": 1})
    with pytest.raises(TypeError, match="unknown VisionConfig values: colour"):
        PixelLMConfig.from_dict({"vision": {"colour": 1}})
    with pytest.raises(ValueError, match="multiple of 28"):
        VisionConfig(image_size=450)
    with pytest.raises(ValueError, match="feature layer -25"):
        VisionConfig(feature_layers=(-25,))
    with pytest.raises(ValueError, match="at least one of each"):
        PixelLMConfig(tokens_per_scale=0)


@pytest.fixture
def folder(tmp_path, model):
    """A small model in the published layout: two shards with an index, config.json, tokenizer."""
    rest, _ = published_layout(model.network)
    names = sorted(rest)
    half = len(names) // 2
    index = {}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: rest[name] for name in part}, tmp_path / file)
        index |= dict.fromkeys(part, file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON))
    word_tokenizer().save_pretrained(tmp_path)
    return tmp_path


CONFIG_JSON = {
    "model_type": "llava",
    "vocab_size": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def test_a_published_folder_loads_and_answers_as_the_same_network(
    folder, tmp_path, model, picture, script, monkeypatch
):
    monkeypatch.setattr(published, "config_of_published", lambda values: model.config)
    _, tower = published_layout(model.network)
    save_file(tower, tmp_path / "clip.safetensors")
    loaded = published.load_published(
        folder, tmp_path / "clip.safetensors", device=CPU, dtype=torch.float32
    )
    assert loaded.model_set == "full"
    results = []
    for one in (model, loaded):
        script("the cup SEG . </s>")
        results.append(segment(one, picture, "what is it"))
    assert_allclose(*(result.targets[0].logits for result in results), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_decoder_in_float32(model, picture, script, dtype):
    rest, tower = published_layout(model.network)
    state = map_published(rest, tower, model.config)
    network = published.fill(model.config, state, dtype=dtype, name="half")
    half = replace(model, network=network)
    for name, value in network.state_dict().items():
        precise = name.startswith(published.FLOAT32_PARTS)
        assert value.dtype == (torch.float32 if precise else dtype), name
    results = []
    for one in (model, half):
        script("the cup SEG . </s>")
        results.append(segment(one, picture, "what is it").targets[0])
    scale = abs(results[0].logits).max()
    assert_allclose(results[0].logits, results[1].logits, atol=0.35 * scale)


def test_the_position_table_of_another_grid_is_resized(model):
    positions = torch.randn(10, 12)  # 3 x 3 patches
    rest, tower = published_layout(model.network, positions)
    for mode in ("reference", "correct"):
        config = replace(model.config, vision=replace(model.config.vision, position_table=mode))
        table = map_published(rest, tower, config)[build.POSITIONS]
        assert table.shape == (17, 12)
        kept = {"reference": (-1, -1), "correct": (0, 0)}[mode]
        assert torch.equal(table[kept[0]], positions[kept[1]])
    whole = map_published(
        rest, {k.removeprefix("vision_model."): v for k, v in tower.items()}, config
    )
    assert torch.equal(whole[build.POSITIONS], table)


def test_embedded_weights_and_tokenizer(tmp_path, picture, script):
    config = small_config(
        language=replace(small_config().language, tie_word_embeddings=True), learned_fusion=True
    )
    model = small_model(language=config.language, learned_fusion=True)
    state = {k: v.clone() for k, v in model.network.state_dict().items() if k != build.HEAD}
    save_file(state, tmp_path / "small.safetensors")
    word_tokenizer().backend_tokenizer.save(str(tmp_path / "small_tokenizer.json"))
    entry = parse_entry(
        {
            "id": "pixellm_small",
            "method": "pixellm",
            "set": "embedded",
            "title": "small",
            "note": "",
            "file": "small.safetensors",
            "license": "",
            "source": "",
            "memory_mib": 1,
            "builder": "core.pixellm.build:build_from_entry",
            "config": {**config.to_dict(), "tokenizer": "small_tokenizer.json"},
        },
        tmp_path,
    )
    loaded = with_tokenizer(entry, build_from_entry(entry, state))
    assert loaded.id == "pixellm_small" and not loaded.network.training
    results = []
    for one in (model, loaded):
        script("the cup SEG . </s>")
        results.append(segment(one, picture, "what is it").targets[0])
    assert_allclose(results[0].logits, results[1].logits, atol=1e-6)
    assert_allclose(encode(model, picture).image_tokens, encode(loaded, picture).image_tokens)
    state.pop("mask_decoder.level_embed.weight")
    with pytest.raises(ModelUnavailable, match="do not fit pixellm_small: 1 missing"):
        build_from_entry(entry, state)
    (tmp_path / "small_tokenizer.json").write_text("{")
    with pytest.raises(ModelUnavailable, match="small_tokenizer.json is missing or damaged"):
        with_tokenizer(entry, loaded.network)


def test_tokenizers_that_do_not_fit():
    config = small_config()
    with pytest.raises(ModelUnavailable, match=r"does not fit the model: \[SEG6\], \[SEG7\] is"):
        ChatTokenizer(word_tokenizer(), replace(config, tokens_per_scale=4))
    small = replace(config, language=replace(config.language, vocab_size=10))
    with pytest.raises(ModelUnavailable, match="<im_end> is missing or not among its 10 ids"):
        ChatTokenizer(word_tokenizer(), small)


def test_a_missing_tokenizer(tmp_path):
    with pytest.raises(ModelUnavailable, match="missing or damaged"):
        load_tokenizer(tmp_path / "none", small_config())


def test_published_tokenizers_split_as_in_training(tmp_path):
    """As the slow tokenizer of transformers 4.31 does: a word begins after each named token, and
    white space around the added ones is gone."""
    sentencepiece = pytest.importorskip("sentencepiece")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("USER: what is it ASSISTANT: it is the cup and a clock\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=310,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    names = [*(f"[SEG{i}]" for i in range(6)), "<im_start>", "<im_end>"]
    added = {name: 310 + index for index, name in enumerate(names)}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": None, "pad_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = small_config(language=replace(small_config().language, vocab_size=318))
    tokenizer = load_tokenizer(tmp_path, config)
    assert tokenizer.codebook.ids == tuple(range(310, 316))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (1, 2, 0)
    what = tokenizer.encode("what is it")
    assert tokenizer.encode("<im_end>\nwhat is it") == [317, *what]
    assert tokenizer.encode("USER: <im_start>") == [*tokenizer.encode("USER:"), 316]
    cup = tokenizer.encode("the cup")
    group = " ".join(names[:6])
    ids = tokenizer.encode(f"the cup {group} and [SEG0]")
    assert ids == [*cup, *range(310, 316), *tokenizer.encode("and"), 310]
    assert tokenizer.decode([*ids, 2]) == "the cup and"


def test_parameters_that_belong_nowhere(model):
    rest, tower = published_layout(model.network)
    for key in ("model.visual_model.weight", "mask_decoder.iou_token.weight", "other"):
        with pytest.raises(ModelUnavailable, match="has a parameter"):
            map_published({**rest, key: torch.zeros(1)}, tower, model.config)
    rest.pop("model.norm.weight")
    state = map_published(rest, tower, model.config)
    with pytest.raises(ModelUnavailable, match="1 parameters differ, the first is language_model"):
        published.fill(model.config, state, dtype=torch.float32, name="PixelLM")


def test_published_configurations():
    config = build.config_of_published({**CONFIG_JSON, "vocab_size": 32011, "rope_theta": None})
    assert config.vision == VisionConfig(position_table="reference")
    assert config.language == LanguageConfig(
        vocab_size=32011, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2
    )
    with pytest.raises(ModelUnavailable, match="config.json lacks 'hidden_size'"):
        build.config_of_published({"vocab_size": 3})


def test_folders_without_their_files(tmp_path, folder, model, monkeypatch):
    monkeypatch.setattr(published, "config_of_published", lambda values: model.config)
    load = dict(device=CPU, dtype=torch.float32)
    for path in folder.glob("pytorch_model*"):
        path.unlink()
    with pytest.raises(ModelUnavailable, match="no weights of PixelLM"):
        published.load_published(folder, tmp_path / "clip", **load)
    (folder / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match="config.json of PixelLM is missing"):
        published.load_published(folder, tmp_path / "clip", **load)


def test_memory_is_as_computed_from_the_shapes():
    """Weights alone, decimal GB, against sums made independently of this code."""
    for config, sizes in (
        (PixelLMConfig.published_7b(), {None: 14.3, "8bit": 7.8, "4bit": 4.7}),
        (PixelLMConfig.published_13b(), {None: 27.0, "8bit": 14.3, "4bit": 8.1}),
    ):
        for quantization, size in sizes.items():
            needed = published.memory_mib(config, torch.bfloat16, quantization)
            weights = (needed - published.WORKING_MIB) * 2**20 / 1e9
            assert weights == pytest.approx(size, abs=0.12)


def test_too_little_memory_says_how_much_is_missing(monkeypatch):
    config = PixelLMConfig.published_7b()
    monkeypatch.setattr(published, "free_memory_mib", lambda device: 10_000)
    monkeypatch.setattr(published, "describe", lambda device: "a GPU")
    with pytest.raises(ModelUnavailable) as error:
        published.check_memory("PixelLM-7B", config, torch.device("cuda"), dtype=torch.bfloat16)
    needed = published.memory_mib(config, torch.bfloat16)
    eight, four = (published.memory_mib(config, torch.bfloat16, q) for q in ("8bit", "4bit"))
    assert error.value.message == (
        f"PixelLM-7B needs about {needed} MiB on a GPU and 10000 MiB are free, so "
        f"{needed - 10_000} MiB are missing: load it in 8bit ({eight} MiB) or 4bit ({four} MiB), "
        "or use the embedded model."
    )
    with pytest.raises(ModelUnavailable, match="missing: use the embedded model"):
        published.check_memory("PixelLM-7B", config, CPU, dtype=torch.bfloat16)
    monkeypatch.setattr(published, "free_memory_mib", lambda device: 100_000)
    published.check_memory("PixelLM-7B", config, CPU, dtype=torch.bfloat16)


def test_quantisation_needs_a_gpu_and_its_package(monkeypatch):
    published.check_quantization(None, CPU)
    with pytest.raises(ModelUnavailable, match="need an NVIDIA GPU"):
        published.check_quantization("8bit", CPU)
    with pytest.raises(ModelUnavailable, match="'3bit' is not known: use 8bit, 4bit or none"):
        published.check_quantization("3bit", CPU)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelUnavailable, match="need the package bitsandbytes"):
        published.check_quantization("4bit", torch.device("cuda"))


def test_downloads_that_fail_say_so(monkeypatch):
    import huggingface_hub

    def fail(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelUnavailable, match="PixelLM-13B could not be downloaded"):
        published.download_published("13B")


def test_the_engine_can_lower_the_precision_of_the_large_parts(picture, script):
    model, half = small_model(), small_model()
    for part in (
        "vision_tower",
        "mm_projector",
        "out_mm_projector",
        "language_model.model",
        "language_model.lm_head",
    ):
        lower_precision(half.network.get_submodule(part), torch.bfloat16, CPU)
    results = []
    for one in (model, half):
        script("the cup SEG . </s>")
        results.append(segment(one, picture, "what is it").targets[0])
    scale = abs(results[0].logits).max()
    assert_allclose(results[0].logits, results[1].logits, atol=0.35 * scale)


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_only_the_blocks_of_the_language_model_are_quantised(monkeypatch, quantization):
    """With a stand-in for bitsandbytes, which needs a GPU to do more than be built."""

    class Small(torch.nn.Linear):
        def __init__(self, width, out, bias, **options):
            super().__init__(width, out, bias)
            self.options = options

    def parameter(data, requires_grad, **options):
        return torch.nn.Parameter(data, requires_grad)

    classes = SimpleNamespace(
        Linear8bitLt=Small, Linear4bit=Small, Int8Params=parameter, Params4bit=parameter
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(nn=classes))
    network = small_model().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    published.quantize(network.language_model.model.layers, quantization, torch.bfloat16)
    small = [name for name, module in network.named_modules() if isinstance(module, Small)]
    assert len(small) == 2 * 7
    assert all(name.startswith("language_model.model.layers.") for name in small)
    options = network.get_submodule(small[0]).options
    if quantization == "4bit":
        assert options == {"compute_dtype": torch.bfloat16, "quant_type": "nf4"}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
