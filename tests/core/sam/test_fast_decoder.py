import numpy as np
import pytest
import torch

from core.sam.fast_decoder import decode_prompts


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("parts", [("points",), ("boxes",), ("points", "boxes"), ("masks",)])
def test_equals_the_package_s_decoder(golden_sam, parts, count, multimask_output):
    generator = torch.Generator().manual_seed(count)
    prompts = {
        "points": (torch.rand(count, 4, 2, generator=generator) * 256, torch.ones(count, 4)),
        "boxes": torch.rand(count, 4, generator=generator) * 256,
        "masks": torch.randn(count, 1, 64, 64, generator=generator),
    }
    sparse, dense = golden_sam.prompt_encoder(
        **{name: prompts[name] if name in parts else None for name in prompts}
    )
    arguments = {
        "image_pe": golden_sam.prompt_encoder.get_dense_pe(),
        "sparse_prompt_embeddings": sparse,
        "multimask_output": multimask_output,
    }
    embedding = torch.randn(1, 128, 16, 16, generator=generator)
    expected = golden_sam.mask_decoder(
        image_embeddings=embedding, dense_prompt_embeddings=dense, **arguments
    )
    shared = dense if "masks" in parts else dense[:1]
    got = decode_prompts(
        golden_sam.mask_decoder,
        image_embedding=embedding,
        dense_prompt_embeddings=shared,
        **arguments,
    )
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=2e-4)
    torch.testing.assert_close(got[1], expected[1], rtol=0, atol=2e-5)


def test_dense_position_code_is_the_golden_one(golden, golden_sam):
    np.testing.assert_allclose(
        golden_sam.prompt_encoder.get_dense_pe(), golden["out:dense_pe"], rtol=0, atol=1e-5
    )
