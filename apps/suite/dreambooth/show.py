"""Turn a session into what the page's components show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from apps.suite.dreambooth.drawing import write_gallery
from apps.suite.dreambooth.markup import (
    cards_html,
    expected_html,
    learned_html,
    pairs_html,
    samples_html,
    saved_html,
    say_about,
    training_html,
    words_html,
)
from apps.suite.dreambooth.session import (
    MARK_IT,
    NO_MODEL,
    NO_PICTURES,
    DreamBoothSession,
)
from apps.suite.notices import Notice, say_seconds, status_html
from apps.suite.segment.drawing import draw_candidates
from apps.suite.segment.markup import prompts_html, readings_html
from apps.suite.segment.show import show_canvas
from core.dreambooth.config import PRESETS
from core.dreambooth.subjects import MIN_PICTURES

if TYPE_CHECKING:
    from core.dreambooth.card import LearnedSubject


class Shown(NamedTuple):
    """Updates of the tab's components, in the order that the tab lists them as outputs."""

    canvas: Any
    status: Any
    readings: Any
    cards: Any
    undo: Any
    clear: Any
    prompts: Any
    saved: Any
    step2: Any
    class_noun: Any
    preset: Any
    expected: Any
    train: Any
    step3: Any
    training: Any
    samples: Any
    pause: Any
    go_on: Any
    stop: Any
    another: Any
    timer: Any
    step4: Any
    learned: Any
    prompt: Any
    guidance: Any
    sampler: Any
    words: Any
    pairs: Any
    gallery: Any
    cancel: Any
    prepare: Any
    files: Any


NOTHING = Shown(*[gr.skip()] * len(Shown._fields))
TRAINING = ("step3", "training", "samples", "pause", "go_on", "stop", "another", "timer")
GO_ON = "Go on from the last checkpoint"


def show(session: DreamBoothSession) -> Shown:
    """Draw everything that the session's last change can have changed."""
    with session.lock:
        marking, training = show_marking(session), show_training(session)
        return marking._replace(
            **{name: getattr(training, name) for name in TRAINING},
            **_result(session),
            saved=saved_html(session),
            step2=gr.update(visible=session.is_prepared),
            class_noun=_class_noun(session),
            preset=gr.update(value=session.wishes.preset, choices=preset_choices(session)),
            expected=expected_html(session),
            train=gr.update(interactive=session.is_prepared and session.diffusion is not None),
            cancel=gr.update(interactive=session.running),
        )


def show_marking(session: DreamBoothSession) -> Shown:
    """Draw step 1 only: the answer to a click, before the others are searched."""
    with session.lock:
        scene, picture = session.scene, session.picture
        candidates = draw_candidates(picture, scene) if picture else []
        return NOTHING._replace(
            canvas=show_canvas(session),
            status=status_of(session),
            readings=readings_html(scene, candidates, tab="dreambooth"),
            cards=cards_html(session),
            undo=gr.update(interactive=len(session.history) > 1),
            clear=gr.update(interactive=bool(scene.prompts or scene.corner or scene.answer)),
            prompts=prompts_html(scene, picture.size if picture else None),
        )


def show_training(session: DreamBoothSession) -> Shown:
    """Show how the training stands: what the page asks for every second."""
    with session.lock:
        standing = session.standing
        state = standing.status.state if standing else ""
        ended = standing is None or standing.has_ended
        held = state in ("paused", "stopped", "failed", "interrupted")
        return NOTHING._replace(
            status=status_of(session),
            step3=gr.update(visible=bool(session.training)),
            training=training_html(session),
            samples=_samples(session),
            pause=gr.update(visible=state == "running"),
            go_on=gr.update(visible=held, value="Go on" if state == "paused" else GO_ON),
            stop=gr.update(visible=not ended),
            another=gr.update(visible=ended),
            timer=gr.update(active=not ended),
        )


def show_tick(session: DreamBoothSession) -> Shown:
    """The same, and all the rest when the training has just come to its end."""
    if session.fill_prompt or session.standing is None:
        return show(session)
    return show_training(session)


def show_progress(session: DreamBoothSession, notice: Notice) -> Shown:
    """Change the status line only, while work that can be cancelled is going on."""
    return NOTHING._replace(status=status_html(notice), cancel=gr.update(interactive=True))


def _samples(session: DreamBoothSession) -> Any:
    """The samples, unless the page shows them already."""
    standing = session.standing
    wanted = (session.training, standing.samples if standing else ())
    if wanted == session.shown_samples:
        return gr.skip()
    session.shown_samples = wanted
    return samples_html(standing)


def _result(session: DreamBoothSession) -> dict[str, Any]:
    """What step 4 shows."""
    fill, session.fill_prompt = session.fill_prompt, False
    learned = session.learned
    return {
        "step4": gr.update(visible=learned is not None),
        "learned": learned_html(session),
        "prompt": _first_prompt(learned) if fill and learned else gr.skip(),
        "guidance": learned.config.guidance_scale if fill and learned else gr.skip(),
        "sampler": learned.config.inference_steps if fill and learned else gr.skip(),
        "words": words_html(session),
        "pairs": pairs_html(session),
        "gallery": gr.update(
            value=write_gallery(session) if session.pairs else None, visible=bool(session.pairs)
        ),
        "prepare": gr.update(interactive=learned is not None),
        "files": gr.update(value=None, visible=False),
    }


def _first_prompt(learned: LearnedSubject) -> str:
    """The last of the sample prompts: the subject in a new place."""
    prompts = learned.config.sample_prompts or ("a photo of {}",)
    return learned.subject.fill(prompts[-1])


def _class_noun(session: DreamBoothSession) -> Any:
    """The noun of an example, which takes the place of what is in the field."""
    fill, session.fill_noun = session.fill_noun, False
    return session.wishes.class_noun if fill else gr.skip()


def preset_choices(session: DreamBoothSession) -> list[tuple[str, str]]:
    """The presets with their expected times, as far as those are known."""
    known = session.seconds_by_preset
    times = {name: f" · {say_about(seconds)}" for name, seconds in known.items()}
    return [(f"{title.capitalize()}{times.get(name, '')}", name) for name, title in PRESETS.items()]


def status_of(session: DreamBoothSession) -> str:
    """Write the session's notice, or what there is to say when nothing went wrong."""
    notice = session.notice
    return status_html(notice if notice.text else say_state(session))


def say_state(session: DreamBoothSession) -> Notice:
    """What there is to say when nothing went wrong: what is to be done next."""
    standing = session.standing
    if standing is not None and not standing.has_ended:
        return Notice("ready", say_training(session))
    if session.items and not session.is_prepared:
        return _say_pictures(session)
    if session.newest and session.pairs:
        count = "1 picture" if session.newest == 1 else f"{session.newest} pictures"
        return Notice("ready", f"Drawn {count}; all are kept in the gallery.")
    if session.learned is not None:
        return Notice("ready", f"Learned: {session.learned.subject.name}. Say what to draw.")
    if not session.items:
        return Notice("hint", NO_PICTURES)
    if session.diffusion is None:
        return Notice("warning", NO_MODEL)
    took = f" It takes about {say_about(session.expected)} here." if session.expected else ""
    return Notice("ready", f"Everything is ready: say what kind of thing it is and train.{took}")


def _say_pictures(session: DreamBoothSession) -> Notice:
    """What the pictures still lack."""
    missing = MIN_PICTURES - len(session.items)
    if missing > 0:
        return Notice("hint", _say_missing(len(session.items), missing))
    if session.marked is None:
        return Notice("ready", MARK_IT)
    if session.unsought:
        return Notice("busy", "Looking for it in the other pictures…")
    if session.undecided:
        count = len(session.undecided)
        return Notice("ready", f"Look at the masks: {count} of them wait for your decision.")
    return Notice("hint", _say_missing(len(session.used), MIN_PICTURES - len(session.used)))


def say_training(session: DreamBoothSession) -> str:
    """How far a training is, in a sentence."""
    standing = session.standing
    if standing is None:
        return ""
    status, steps = standing.status, standing.config.steps
    if status.state == "waiting":
        return f"Your training waits: {status.place} before it." if status.place else "It begins."
    if status.state == "paused":
        return f"The training holds after step {standing.step} of {steps}."
    if status.phase is not None:
        return f"{status.phase.message}…"
    left = f", {say_seconds(status.step.remaining)} left" if status.step else ""
    return f"Training: step {standing.step} of {steps}{left}."


def _say_missing(count: int, missing: int) -> str:
    have = "1 picture is" if count == 1 else f"{count} pictures are"
    more = "one more" if missing == 1 else f"{missing} more"
    return (
        f"{have} too few to learn from: add {more}, in other places and from other sides."
        if count
        else "All pictures are left out: take some back in."
    )
