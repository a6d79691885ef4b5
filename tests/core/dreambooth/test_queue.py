"""One training at a time, places in the queue, and trainings found again by their id."""

import threading

import pytest

from core.dreambooth import queue as queues
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
from core.dreambooth.queue import TrainingQueue, queue_of
from core.errors import Cancelled, PromptError, SuiteError

PATIENCE = 20.0


def step(number):
    return StepDone(number, 4, 0.5, 0.5, None, 0.6, 0.5, 1e-4, 1.0, 2.0)


def finishing(folder, control):
    yield Phase("caching", 1.0, "Encoding")
    yield step(1)
    yield CheckpointSaved(1, folder / "checkpoint-000001")
    yield Samples(1, ("a",), (0,), ())
    yield step(2)
    yield Finished(2, folder / "subject")


class Gate:
    """Work that waits in its first step until it is let go."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, folder, control):
        yield step(1)
        self.entered.set()
        assert self.open.wait(PATIENCE)
        if control.paused:
            yield Paused(1)
            control.wait_while_paused()
        if control.cancelled:
            yield Stopped(1, None)
            return
        yield Finished(1, folder / "subject")


@pytest.fixture
def queue(tmp_path):
    return TrainingQueue(tmp_path)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


def test_a_training_runs_without_anybody_looking(queue, tmp_path):
    one = queue.submit(finishing, title="a sks clock", facts={"steps": 2})
    status = queue.wait(one, PATIENCE)
    assert (status.state, status.title, status.place) == ("finished", "a sks clock", 0)
    assert status.step == step(2)
    assert status.checkpoint == 1
    assert status.subject == tmp_path / one / "subject"
    assert queue.steps(one) == [step(1), step(2)]
    assert queue.steps(one, after=1) == [step(2)]
    assert [sample.step for sample in queue.samples(one)] == [1]
    assert queue.facts(one) == {"steps": 2}


def test_others_wait_and_see_their_place(queue, gate):
    first = queue.submit(gate)
    assert gate.entered.wait(PATIENCE)
    second, third = queue.submit(finishing), queue.submit(finishing)
    assert queue.status(first).state == "running"
    assert [queue.status(one).place for one in (first, second, third)] == [0, 1, 2]
    assert queue.status(third).state == "waiting"
    queue.cancel(second)
    assert queue.status(second).state == "stopped"
    assert queue.status(third).place == 1
    gate.open.set()
    assert queue.wait(third, PATIENCE).state == "finished"
    assert queue.status(first).state == "finished"


def test_cancel_and_pause_reach_the_running_training(queue, gate):
    one = queue.submit(gate)
    assert gate.entered.wait(PATIENCE)
    queue.pause(one)
    gate.open.set()
    for _ in range(2000):
        if queue.status(one).state == "paused":
            break
        threading.Event().wait(0.005)
    assert queue.status(one).state == "paused"
    queue.cancel(one)
    assert queue.wait(one, PATIENCE).state == "stopped"


def test_a_pause_ends(queue, gate):
    one = queue.submit(gate)
    assert gate.entered.wait(PATIENCE)
    queue.pause(one)
    queue.go_on(one)
    gate.open.set()
    assert queue.wait(one, PATIENCE).state == "finished"


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (SuiteError("The disk is full."), "failed", "The disk is full."),
        (Cancelled("Stopped."), "stopped", None),
        (ZeroDivisionError(), "failed", "a fault of this program"),
    ],
)
def test_errors_end_one_training_and_not_the_queue(queue, error, state, message):
    def failing(folder, control):
        yield step(1)
        raise error

    one, two = queue.submit(failing), queue.submit(finishing)
    status = queue.wait(one, PATIENCE)
    assert status.state == state
    assert message is None or message in status.error
    assert queue.wait(two, PATIENCE).state == "finished"


def test_trainings_are_found_after_a_restart(queue, tmp_path):
    one = queue.submit(finishing, title="clock", facts={"seed": 1})
    queue.wait(one, PATIENCE)
    later = TrainingQueue(tmp_path)
    status = later.status(one)
    assert (status.state, status.title, status.checkpoint) == ("finished", "clock", 1)
    assert status.subject == tmp_path / one / "subject"
    assert later.facts(one) == {"seed": 1}
    assert later.steps(one) == []


def test_what_ran_when_the_server_died_is_interrupted_and_goes_on(queue, gate, tmp_path):
    one = queue.submit(gate)
    assert gate.entered.wait(PATIENCE)
    later = TrainingQueue(tmp_path)
    assert later.status(one).state == "interrupted"

    def resuming(folder, control):
        yield Resumed(1, (step(1),))
        yield step(2)
        yield Finished(2, folder / "subject")

    assert later.submit(resuming, job_id=one) == one
    assert later.wait(one, PATIENCE).state == "finished"
    assert later.steps(one) == [step(1), step(2)]


def test_a_running_training_is_not_started_twice(queue, gate):
    one = queue.submit(gate)
    assert gate.entered.wait(PATIENCE)
    with pytest.raises(PromptError, match="still going on"):
        queue.submit(finishing, job_id=one)


def test_only_ended_trainings_are_deleted(queue, gate, tmp_path):
    one = queue.submit(gate)
    assert gate.entered.wait(PATIENCE)
    with pytest.raises(PromptError, match="cancel it first"):
        queue.delete(one)
    gate.open.set()
    queue.wait(one, PATIENCE)
    queue.delete(one)
    assert not (tmp_path / one).exists()
    with pytest.raises(PromptError, match="no such training"):
        queue.status(one)


@pytest.mark.parametrize("job_id", ["0" * 32, "../../etc/passwd", "", "x" * 32])
def test_unknown_ids(queue, job_id):
    with pytest.raises(PromptError, match="no such training"):
        queue.status(job_id)
    with pytest.raises(PromptError, match="not running here"):
        queue.cancel(job_id)


def test_a_full_queue_refuses(queue, gate, monkeypatch):
    monkeypatch.setattr(queues, "MAX_WAITING", 1)
    queue.submit(gate)
    assert gate.entered.wait(PATIENCE)
    queue.submit(finishing)
    with pytest.raises(PromptError, match="1 trainings are waiting"):
        queue.submit(finishing)


def test_old_trainings_leave_memory_and_not_the_disk(queue, monkeypatch):
    monkeypatch.setattr(queues, "KEPT_JOBS", 1)
    ids = [queue.submit(finishing) for _ in range(1)]
    for _ in range(3):
        queue.wait(ids[-1], PATIENCE)
        ids.append(queue.submit(finishing))
    queue.wait(ids[-1], PATIENCE)
    assert queue.steps(ids[0]) == []
    assert queue.status(ids[0]).state == "finished"


def test_waiting_has_an_end(queue, gate):
    one = queue.submit(gate)
    assert queue.wait(one, 0.01).state in ("waiting", "running")


def test_each_device_has_one_queue(tmp_path):
    assert queue_of("cuda:0", tmp_path) is queue_of("cuda:0", tmp_path)
    assert queue_of("cuda:0", tmp_path) is not queue_of("cuda:1", tmp_path)
