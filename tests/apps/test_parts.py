"""Parts of the page without a server: notices, limits, sessions, jobs, shown pictures."""

from __future__ import annotations

import copy
import json
import os
import re
import threading
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from apps.suite import app, examples, frame, models
from apps.suite.canvas import View
from apps.suite.components import show_all, shown_parts
from apps.suite.jobs import follow, run_job
from apps.suite.limits import RateLimiter, TooManyRequests
from apps.suite.notices import Notice, error_for_client, notice_of, say_seconds, status_html
from apps.suite.segment.session import SegmentSession
from apps.suite.sessions import MOST_VIEWS, Visitors
from core.engine import CancelToken
from core.errors import Cancelled, ModelUnavailable, NothingFound, PromptError
from core.settings import Settings


def test_a_bug_is_told_by_a_reference_and_logged(caplog):
    notice = notice_of(KeyError("secret path"))
    assert notice.kind == "failed" and "secret" not in notice.text
    reference = re.fullmatch(r"Something broke on our side. Reference (\w{4})\.", notice.text)
    assert reference and reference[1] in caplog.text and "secret path" in caplog.text


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PromptError("Click first."), "warning"),
        (NothingFound("Nothing above 0.60."), "hint"),
        (Cancelled("Stopped after 3 of 8."), "hint"),
    ],
)
def test_a_mistake_is_told_in_its_own_words(error, kind):
    assert notice_of(error) == Notice(kind, error.message)


def test_visitors_text_is_never_markup():
    hostile = "<img src=x onerror=alert(1)> {{a}} ${b} `c`"
    line = status_html(Notice("hint", hostile, action='"><b', label="<i>"))
    assert not re.search(r"<(img|b|i)\b|\{\{|\$\{|`", line)
    assert "<img" not in error_for_client(PromptError(hostile)).message


def test_times_are_said_shortly():
    said = [say_seconds(value) for value in (0.001, 0.123, 1.84, 130.4)]
    assert said == ["under 0.01 s", "0.12 s", "1.8 s", "2 min 10 s"]


def test_a_flood_is_stopped_and_may_go_on_later():
    now = [0.0]
    limiter = RateLimiter(burst=3, per_second=1, clock=lambda: now[0])
    for _ in range(3):
        limiter.check("a")
    with pytest.raises(TooManyRequests, match="more than 3 requests"):
        limiter.check("a")
    limiter.check("b")
    now[0] = 1.0
    limiter.check("a")


def test_a_session_is_its_visitors_own_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    first = SegmentSession()
    second = copy.deepcopy(first)
    assert first is not second and first.lock is not second.lock
    views = [first.new_view(".png") for _ in range(MOST_VIEWS + 3)]
    for path in views:
        path.write_bytes(b"x")
    other = second.new_file(".png")
    other.write_bytes(b"x")
    assert views[0].parent != other.parent
    first.new_view(".png")
    assert not views[3].exists() and views[-1].exists()
    upload = tmp_path / "upload.png"
    upload.write_bytes(b"x")
    first.own_upload(upload)
    token = first.begin_job()
    visitors = Visitors()
    visitors.enter("tab 1", first)
    visitors.enter("tab 2", second)
    visitors.leave("tab 1")
    assert not views[0].parent.exists() and not upload.exists() and other.exists()
    assert token.cancelled and len(visitors) == 1


def test_an_upload_that_came_again_is_not_deleted(tmp_path):
    session = SegmentSession()
    upload = tmp_path / "same.png"
    upload.write_bytes(b"x")
    session.own_upload(upload)
    os.utime(upload, (upload.stat().st_atime, upload.stat().st_mtime + 5))
    session.close()
    assert upload.exists()


def test_a_job_reports_and_returns():
    def work(report):
        report(0.5, "half")
        return 7

    job = run_job(work, CancelToken())
    assert next(job) == (0.5, "half")
    with pytest.raises(StopIteration) as end:
        next(job)
    assert end.value.value == 7


def test_a_slow_listener_hears_the_newest_report():
    told, go_on = threading.Event(), threading.Event()

    def work(report):
        report(0.1, "first")
        go_on.wait(10)
        for tenth in range(2, 10):
            report(tenth / 10, f"{tenth}")
        told.set()
        return 7

    job = run_job(work, CancelToken())
    assert next(job) == (0.1, "first")
    go_on.set()
    assert told.wait(10)
    assert list(job) == [(0.9, "9")]


def test_a_job_passes_its_error_on_and_stops_when_closed():
    def fail(report):
        raise PromptError("no")

    with pytest.raises(PromptError):
        list(run_job(fail, CancelToken()))

    token = CancelToken()

    def wait(report):
        report(0.0, "started")
        while not token.cancelled:
            pass

    job = run_job(wait, token)
    next(job)
    job.close()
    assert token.cancelled


def followed(work, **hooks):
    """The notices of a job, and the session after it."""
    session = SegmentSession()
    return list(follow(session, "Doing:", work, session.begin_job(), **hooks)), session


def test_a_followed_job_leaves_its_last_notice_with_the_session():
    def work(report):
        report(0.5, "half")
        return Notice("ready", "Done.")

    notices, session = followed(work)
    assert notices == [Notice("busy", "Doing: half…", progress=0.5)]
    assert session.notice == Notice("ready", "Done.")
    assert not session.cancel_job(), "the job is over"
    _, session = followed(lambda report: None)
    assert session.notice == SegmentSession().notice, "nothing new to say"


def test_what_goes_wrong_in_a_followed_job_is_the_sessions_notice():
    def fail(report):
        raise PromptError("no")

    notices, session = followed(fail)
    assert notices == [] and session.notice == Notice("warning", "no")
    assert not session.cancel_job()
    _, session = followed(fail, explain=lambda session, error: None)
    assert session.notice == SegmentSession().notice


def test_a_job_that_was_cancelled_before_it_began_does_nothing():
    session, ran = SegmentSession(), []
    token = session.begin_job()
    session.cancel_job()
    assert list(follow(session, "Doing:", ran.append, token)) == []
    assert not ran and session.notice.text == "Stopped at your request."


@pytest.mark.parametrize("stops_queued", [True, False])
def test_a_cancel_may_count_for_what_waits_behind_the_job(stops_queued):
    session = SegmentSession()

    def work(report):
        session.cancel_job()
        return Notice("ready", "Done.")

    list(follow(session, "Doing:", work, session.begin_job(), stops_queued=stops_queued))
    assert session.job_token().cancelled == stops_queued
    assert not session.begin_job().cancelled


def test_a_followed_job_keeps_its_notice_as_the_tab_likes():
    kept = []
    _, session = followed(
        lambda report: Notice("ready", "Done."), keep=lambda *given: kept.append(given)
    )
    assert kept == [(session, Notice("ready", "Done."))]
    assert session.notice == SegmentSession().notice


def test_a_page_that_is_closed_stops_the_followed_job():
    session = SegmentSession()
    token = session.begin_job()

    def wait(report):
        report(0.0, "started")
        while not token.cancelled:
            pass

    job = follow(session, "Doing:", wait, token)
    next(job)
    job.close()
    assert token.cancelled and not session.cancel_job()


def test_a_picture_that_cannot_be_drawn_is_told_and_nothing_else_changes(caplog):
    class Shown(NamedTuple):
        status: Any
        picture: Any

    def broken(session):
        raise RuntimeError("/secret/path")

    session = SegmentSession()
    update = show_all(session, broken, Shown("skip", "skip"))
    assert update[0] is session and update[3] == "skip"
    assert "Reference" in update[2] and session.notice.kind == "failed"
    parts = SimpleNamespace(picture="a picture", status="a line", other=1)
    assert shown_parts(parts, Shown) == Shown("a line", "a picture")
    drawn = show_all(session, lambda session: Shown("said", "drawn"), Shown("skip", "skip"))
    assert drawn[2:] == ("said", "drawn")


@pytest.mark.parametrize("size", [(40, 60), (240, 320), (700, 900), (1500, 2000), (3000, 200)])
def test_clicks_find_their_way_back(size):
    view = View.of(np.zeros((*size, 3), np.uint8), 1024)
    height, width = view.image.shape[:2]
    assert max(height, width) <= max(1024, 2 * 640)
    scale = max(1.0, size[1] / width)
    for x, y in ((0, 0), (width - 1, height - 1), (width // 3, height // 4)):
        there = view.to_original(x, y)
        assert 0 <= there[0] <= size[1] - 1 and 0 <= there[1] <= size[0] - 1
        back = view.to_shown([there])[0]
        assert np.abs(back - (x, y)).max() <= max(1.0, 1 / scale) * max(*view.scale_xy, 1)
    mask = np.zeros(size, bool)
    mask[: size[0] // 2] = True
    assert view.mask(mask).mean() == pytest.approx(0.5, abs=0.02)


def test_the_examples_carry_their_credits():
    all_examples = examples.examples()
    assert len(all_examples) >= 10
    assert all(one.license and one.author and one.source for one in all_examples.values())
    assert examples.gallery_html().count("<button") == len(all_examples)


def test_the_full_models_are_described_by_what_they_need():
    with pytest.raises(ModelUnavailable, match="There is no model 'x'"):
        models.usable("x")
    in_use, notice = models.usable("sam_vit_h")
    assert in_use == "sam_embedded" and notice and "2.6 GB" in notice.text
    with pytest.raises(ModelUnavailable, match="use 'embedded'"):
        models.resolve("full")


def test_every_key_has_a_row_and_a_target():
    keys = [key for key, _, _ in frame.KEYS]
    assert len(set(keys)) == len(keys)
    assert frame.keys_html().count("<li ") == len(keys)


def test_building_the_page_needs_no_torch_and_sets_its_limits():
    import subprocess
    import sys
    from pathlib import Path

    code = (
        "import sys, json; from apps.suite import app; page = app.build();"
        "print(json.dumps(['torch' in sys.modules, page.delete_cache, page._queue.max_size,"
        " page.analytics_enabled]))"
    )
    root = Path(app.__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == [False, [1800, 3600], Settings().queue_size, False]
