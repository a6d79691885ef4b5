import pickle

import pytest

from core import errors


@pytest.mark.parametrize(
    "kind",
    [
        errors.ImageError,
        errors.PromptError,
        errors.ModelUnavailable,
        errors.OutOfMemory,
        errors.NothingFound,
        errors.Cancelled,
    ],
)
def test_every_error_is_of_the_family_and_shows_its_message(kind):
    error = kind("The picture is 5000×10 pixels; the limit is 4096.")
    assert isinstance(error, errors.SuiteError)
    assert error.message == str(error) == "The picture is 5000×10 pixels; the limit is 4096."


def test_out_of_memory_is_caught_as_model_unavailable():
    with pytest.raises(errors.ModelUnavailable):
        raise errors.OutOfMemory("The device ran out of memory.")


def test_nothing_found_carries_the_best_score_across_processes():
    error = pickle.loads(pickle.dumps(errors.NothingFound("Nothing above 0.60.", best_score=0.41)))
    assert (error.message, error.best_score) == ("Nothing above 0.60.", 0.41)
    assert errors.NothingFound("Nothing.").best_score is None
