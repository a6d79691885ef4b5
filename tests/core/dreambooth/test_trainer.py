"""The loop: its events, its numbers after an interruption, and everything that can go wrong."""

import errno
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from core.dreambooth import checkpoints, trainer
from core.dreambooth.checkpoints import list_checkpoints, read_facts
from core.dreambooth.config import Subject
from core.dreambooth.control import Control
from core.dreambooth.events import (
    CheckpointSaved,
    Finished,
    Paused,
    Phase,
    Resumed,
    Samples,
    StepDone,
    Stopped,
)
from core.dreambooth.lora import LORA_FILE
from core.errors import ModelUnavailable, OutOfMemory, PromptError, SuiteError
from tests.core.dreambooth.conftest import FAST, SIDE, make_picture, make_training

CLASS = [make_picture(k, (SIDE, SIDE)).image for k in range(10, 13)]
PRIOR = replace(
    FAST, prior=True, prior_pictures=3, train_text_encoder=True, snr_gamma=5.0, batch_size=2
)
FULL = replace(FAST, method="full", learning_rate=1e-3, schedule="cosine", warmup_steps=1)


def run_until(training, step):
    """Iterate until a step is done, then cancel; all events."""
    events = []
    for event in training.run():
        events.append(event)
        if isinstance(event, StepDone) and event.step == step:
            training.control.cancel()
    return events


def weights_of(folder):
    """All trained weights of a subject's folder."""
    found = {}
    for path in sorted((folder / "subject").rglob("*.safetensors")):
        found |= {f"{path.parent.name}/{k}": v for k, v in load_file(path).items()}
    return found


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def events(model, tmp_path_factory):
    config = replace(FAST, sample_steps=2)
    return list(make_training(model, tmp_path_factory.mktemp("events"), config).run())


def test_events_tell_the_whole_training(events):
    assert [event.step for event in of_kind(events, StepDone)] == [1, 2, 3, 4]
    assert [event.step for event in of_kind(events, CheckpointSaved)] == [2, 4]
    assert [event.step for event in of_kind(events, Samples)] == [2, 4]
    assert isinstance(events[-1], Finished)
    phases = of_kind(events, Phase)
    assert [phase.name for phase in phases[:4]] == ["caching"] * 3 + ["training"]
    assert [phase.fraction for phase in phases[:3]] == [1 / 3, 2 / 3, 1]


def test_steps_have_figures_and_the_remaining_time(events):
    steps = of_kind(events, StepDone)
    assert all(step.loss == step.instance > 0 for step in steps)
    assert all(step.prior is None and step.unmasked > 0 for step in steps)
    assert steps[0].smoothed == steps[0].loss
    assert steps[1].remaining == pytest.approx(steps[1].seconds, rel=1e-6)
    assert steps[-1].remaining == 0
    assert all(step.learning_rate == FAST.learning_rate for step in steps)


def test_samples_come_from_the_same_seeds(events):
    first, second = of_kind(events, Samples)
    assert first.seeds == second.seeds
    assert first.prompts == ("a photo of a sks clock", "a photo of a sks clock on a beach")
    assert [image.shape for image in first.images] == [(SIDE, SIDE, 3)] * 2
    assert (first.images[0] != second.images[0]).any()
    assert all(path.is_file() for path in second.files)


def test_samples_do_not_change_the_training(events, trained):
    assert_same(weights_of(events[-1].subject.parent), weights_of(trained))


@pytest.mark.parametrize(
    ("config", "images"), [(FAST, ()), (PRIOR, CLASS), (FULL, ())], ids=["lora", "prior", "full"]
)
def test_a_resumed_training_ends_like_an_uninterrupted_one(model, config, images, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    straight = list(make_training(model, whole, config, class_pictures=images).run())
    first = run_until(make_training(model, parts, config, class_pictures=images), 1)
    assert isinstance(first[-1], Stopped)
    torch.randn(5)  # other work in between
    second = list(make_training(model, parts, config, class_pictures=images).run())
    assert of_kind(second, Resumed)[0].steps[0].loss == of_kind(first, StepDone)[0].loss
    losses = [event.loss for event in of_kind(first, StepDone) + of_kind(second, StepDone)]
    assert losses == [event.loss for event in of_kind(straight, StepDone)]
    assert_same(weights_of(parts), weights_of(whole))


def test_what_a_crash_left_half_written_is_passed_over(model, trained, tmp_path):
    run_until(make_training(model, tmp_path), 2)
    half = tmp_path / "checkpoint-000003.partial"
    half.mkdir()
    (half / LORA_FILE).write_bytes(b"half")
    events = list(make_training(model, tmp_path).run())
    assert of_kind(events, StepDone)[0].step == 3
    assert not half.exists()
    assert_same(weights_of(tmp_path), weights_of(trained))


def test_a_finished_training_finishes_again(model, trained):
    before = weights_of(trained)
    events = list(make_training(model, trained).run())
    assert not of_kind(events, StepDone)
    assert isinstance(events[-1], Finished)
    assert_same(weights_of(trained), before)


def test_cancelling_keeps_a_checkpoint_and_says_which(model, tmp_path):
    events = run_until(make_training(model, tmp_path), 3)
    stopped = events[-1]
    assert stopped == Stopped(3, tmp_path / "checkpoint-000003")
    assert read_facts(stopped.checkpoint).step == 3
    assert not (tmp_path / "subject").exists()


def test_cancelled_before_the_first_step(model, tmp_path):
    control = Control()
    control.cancel()
    events = list(make_training(model, tmp_path, control=control).run())
    assert events[-1] == Stopped(0, None)


def test_cancelling_while_sampling_stops_there(model, tmp_path):
    config = replace(FAST, sample_steps=1)
    training = make_training(model, tmp_path, config)
    events = []
    for event in training.run():
        events.append(event)
        if isinstance(event, Phase) and event.name == "preview":
            training.control.cancel()
    assert not of_kind(events, Samples)
    assert events[-1] == Stopped(1, tmp_path / "checkpoint-000001")


def test_a_pause_holds_after_a_step_and_changes_nothing(model, trained, tmp_path):
    training = make_training(model, tmp_path)
    for event in training.run():
        if isinstance(event, StepDone) and event.step == 2:
            training.control.pause()
        if isinstance(event, Paused):
            assert (event.step, training.control.paused) == (2, True)
            training.control.go_on()
    assert isinstance(event, Finished)
    assert_same(weights_of(tmp_path), weights_of(trained))


def test_a_cancelled_pause_ends():
    control = Control()
    control.pause()
    control.cancel()
    control.wait_while_paused()
    assert control.cancelled


def test_full_background_weight_trains_like_plain_dreambooth(model, tmp_path):
    for name, changes in (("lifted", {"background_weight": 1.0}), ("none", {"mask_loss": "none"})):
        list(make_training(model, tmp_path / name, replace(FAST, steps=2, **changes)).run())
    lifted, plain = weights_of(tmp_path / "lifted"), weights_of(tmp_path / "none")
    for name in lifted:
        assert_close(lifted[name], plain[name], atol=1e-5, rtol=1e-4)


def test_masks_change_what_is_learned(model, trained, tmp_path):
    list(make_training(model, tmp_path, replace(FAST, mask_loss="none")).run())
    masked, plain = weights_of(trained), weights_of(tmp_path)
    assert any(not torch.equal(masked[name], plain[name]) for name in masked)


def test_recomputed_activations_give_the_same_weights(model, trained, tmp_path):
    list(make_training(model, tmp_path, replace(FAST, gradient_checkpointing=True)).run())
    plain, recomputed = weights_of(trained), weights_of(tmp_path)
    for name in plain:
        assert_close(recomputed[name], plain[name], atol=1e-5, rtol=1e-4)


def test_half_precision_trains_float32_weights(model, tmp_path):
    config = replace(FAST, steps=2, precision="bfloat16", sample_steps=2)
    events = list(make_training(model, tmp_path, config).run())
    assert all(np.isfinite(step.loss) for step in of_kind(events, StepDone))
    assert {value.dtype for value in weights_of(tmp_path).values()} == {torch.float32}
    with pytest.raises(ModelUnavailable, match="cannot run in float16"):
        make_training(model, tmp_path, replace(FAST, precision="float16"))


def test_learning_lowers_the_loss_on_what_is_learned(model, tmp_path, monkeypatch):
    changes = {"steps": 12, "learning_rate": 5e-3, "checkpoint_steps": 12}
    config = replace(FAST, method="full", cache_latents=False, **changes)
    training = make_training(model, tmp_path, config)
    batch = training._batches.make(0)
    monkeypatch.setattr(training._batches, "make", lambda *place: batch)
    losses = [step.loss for step in of_kind(training.run(), StepDone)]
    assert losses[-1] < 0.9 * losses[0]


def test_out_of_memory_keeps_the_steps_before(model, trained, tmp_path, monkeypatch):
    training = make_training(model, tmp_path, replace(FAST, method="lora", batch_size=1))
    compute = training._losses

    def sometimes(batch):
        if training.step == 3:
            raise torch.OutOfMemoryError("out of memory")
        return compute(batch)

    monkeypatch.setattr(training, "_losses", sometimes)
    with pytest.raises(OutOfMemory) as error:
        list(training.run())
    assert "gradient checkpointing or a smaller resolution" in error.value.message
    assert "The training up to step 3 is kept" in error.value.message
    list(make_training(model, tmp_path).run())
    assert_same(weights_of(tmp_path), weights_of(trained))


def test_out_of_memory_between_two_steps_keeps_the_last_checkpoint(model, tmp_path, monkeypatch):
    training = make_training(model, tmp_path, replace(FAST, method="full", batch_size=2))
    step = torch.optim.AdamW.step

    def sometimes(self, *args, **kwargs):
        if training.step == 3:
            raise torch.OutOfMemoryError("out of memory")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", sometimes)
    with pytest.raises(OutOfMemory, match="a LoRA or .* one by one .*up to step 2 is kept"):
        list(training.run())
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-000002"]


def test_out_of_memory_at_the_start_loses_nothing(model, tmp_path, monkeypatch):
    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(trainer, "build_denoiser", fail)
    with pytest.raises(OutOfMemory, match="Nothing was trained yet"):
        list(make_training(model, tmp_path).run())


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), ValueError("No space left on device (28)")],
)
def test_a_full_disk_keeps_the_last_checkpoint(model, trained, tmp_path, monkeypatch, error):
    save, calls = checkpoints.save_file, []

    def sometimes(*args):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return save(*args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", sometimes)
        with pytest.raises(SuiteError) as caught:
            list(make_training(model, tmp_path).run())
    assert "The disk is full, so the training stopped at step 4" in caught.value.message
    assert "up to step 2 is kept" in caught.value.message
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-000002"}
    list(make_training(model, tmp_path).run())
    assert_same(weights_of(tmp_path), weights_of(trained))


def test_too_little_room_is_said_before_the_first_step(model, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(SuiteError, match="would need .* MiB of disk space and 0 MiB are free"):
        list(make_training(model, tmp_path).run())


def test_a_loss_that_is_no_number_stops_with_advice(model, tmp_path, monkeypatch):
    training = make_training(model, tmp_path)
    compute = training._losses

    def sometimes(batch):
        losses = compute(batch)
        return replace(losses, total=losses.total * np.nan) if training.step == 2 else losses

    monkeypatch.setattr(training, "_losses", sometimes)
    with pytest.raises(SuiteError, match="astray at step 3.*lower learning rate than 0.01.*step 2"):
        list(training.run())


def test_another_run_s_checkpoint_is_refused(model, tmp_path, monkeypatch):
    run_until(make_training(model, tmp_path), 1)
    others = [make_picture(k) for k in range(3, 6)]
    with pytest.raises(PromptError, match="made with other pictures or masks: restore"):
        list(make_training(model, tmp_path, pictures=others).run())
    with pytest.raises(PromptError, match="made with other settings"):
        list(make_training(model, tmp_path, replace(FAST, dilate=1)).run())
    with monkeypatch.context() as patch:
        patch.setattr(model, "sha256", "1" * 64)
        with pytest.raises(PromptError, match="made with another base model"):
            list(make_training(model, tmp_path).run())
    forced = list(make_training(model, tmp_path, pictures=others, force=True).run())
    assert isinstance(forced[-1], Finished)


def test_prior_preservation_needs_its_pictures(model, tmp_path):
    with pytest.raises(PromptError, match="no pictures of the class"):
        make_training(model, tmp_path, PRIOR)


def test_a_resolution_that_the_model_cannot_work_at(model, tmp_path):
    with pytest.raises(PromptError, match="resolution is 36 px: this model needs a multiple of 8"):
        make_training(model, tmp_path, replace(FAST, resolution=36))


def test_a_prompt_that_the_model_cannot_read_is_refused(model, tmp_path, monkeypatch):
    training = make_training(model, tmp_path)
    monkeypatch.setattr(training, "subject", Subject("sks", "clock " * 6))
    with pytest.raises(PromptError, match="longer than the model can read"):
        list(training.run())


def test_the_learning_rate_follows_its_schedule(model, tmp_path):
    rates = {}
    for schedule in ("constant", "linear", "cosine"):
        config = replace(FAST, steps=10, schedule=schedule, warmup_steps=1, learning_rate=1.0)
        training = make_training(model, tmp_path, config)
        for step in range(10):
            training.step = step
            rates.setdefault(schedule, []).append(training._learning_rate())
    assert rates["constant"] == [0.5] + [1.0] * 9
    assert rates["linear"] == pytest.approx([0.5, *(1 - k / 10 for k in range(1, 10))])
    assert rates["cosine"][5] == pytest.approx(0.5)


def test_the_subject_s_folder_is_all_that_diffusers_needs(trained):
    names = {path.name for path in (trained / "subject").iterdir()}
    assert names == {LORA_FILE, "card.json"}
