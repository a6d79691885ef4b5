"""Pictures from prompts and seeds, alone or together, and the class's pictures."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from core.dreambooth.sampling import class_folder, class_pictures, draw, load_class_pictures
from core.engine import CancelToken
from core.errors import Cancelled, PromptError
from tests.core.dreambooth.conftest import FAST, SIDE

FEW = replace(FAST, prior=True, prior_pictures=6)
QUICK = {"side": SIDE, "steps": 2, "guidance": 2.0}


@pytest.fixture(scope="module")
def pipeline(model):
    return model.pipeline()


def test_a_picture_depends_on_its_seed_and_not_on_its_neighbours(pipeline):
    prompts, seeds = ["a clock", "a dog", "a clock"], [1, 1, 2]
    together = draw(pipeline, prompts, seeds, **QUICK)
    assert [image.shape for image in together] == [(SIDE, SIDE, 3)] * 3
    assert together[0].dtype == np.uint8
    alone = draw(pipeline, prompts[2:], seeds[2:], **QUICK)
    assert np.abs(alone[0].astype(int) - together[2]).max() <= 1
    assert (together[0] != together[2]).any()
    one_by_one = draw(pipeline, prompts, seeds, batch=1, **QUICK)
    assert np.abs(np.array(one_by_one, int) - together).max() <= 1


def test_drawing_leaves_global_random_numbers_alone(pipeline):
    import torch

    state = torch.get_rng_state()
    draw(pipeline, ["a clock"], [1], **QUICK)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_dpm_solver_of_the_models_own_schedule(model, pipeline):
    assert type(pipeline.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.beta_end == model.scheduler.config.beta_end


def test_drawing_stops_between_two_steps(pipeline):
    cancel, told = CancelToken(), []

    def progress(fraction, message):
        told.append(fraction)
        if len(told) == 3:
            cancel.cancel()

    with pytest.raises(Cancelled, match="after 1 of 2 pictures"):
        draw(pipeline, ["a", "b"], [0, 1], batch=1, cancel=cancel, progress=progress, **QUICK)
    assert told == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("prompts", "seeds", "message"),
    [
        ([], [], "There are 0 pictures to draw: ask for 1 to 64"),
        (["a"] * 65, [0] * 65, "There are 65 pictures to draw"),
        (["a"], [0, 1], "There are 1 prompts and 2 seeds"),
        ([" "], [0], "prompt is empty"),
    ],
)
def test_requests_that_make_no_sense(pipeline, prompts, seeds, message):
    with pytest.raises(PromptError, match=message):
        draw(pipeline, prompts, seeds, **QUICK)


def test_class_pictures_are_drawn_once(model, tmp_path):
    assert list(class_pictures(model, "a clock", FEW, tmp_path, side=SIDE)) == [(4, 6), (6, 6)]
    images = load_class_pictures(tmp_path, 6)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name.partition("-")[0] for name in names] == list("012345")
    assert list(class_pictures(model, "a clock", FEW, tmp_path, side=SIDE)) == []
    assert len(load_class_pictures(tmp_path, 2)) == 2
    next(path for path in tmp_path.iterdir() if path.name.startswith("3-")).unlink()
    assert list(class_pictures(model, "a clock", FEW, tmp_path, side=SIDE)) == [(6, 6)]
    again = load_class_pictures(tmp_path, 6)
    assert np.abs(again[3].astype(int) - images[3]).max() <= 1
    assert_array_equal(again[2], images[2])


def test_a_stop_keeps_the_class_pictures_that_are_there(model, tmp_path):
    cancel = CancelToken()
    drawing = class_pictures(model, "a clock", FEW, tmp_path, side=SIDE, cancel=cancel)
    assert next(drawing) == (4, 6)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(drawing)
    assert len(load_class_pictures(tmp_path, 6)) == 4


def test_class_pictures_of_different_kinds_have_different_folders(model, tmp_path):
    places = {
        class_folder(tmp_path, model, *what)
        for what in (("a", 32, 0), ("b", 32, 0), ("a", 64, 0), ("a", 32, 1))
    }
    assert len(places) == 4
