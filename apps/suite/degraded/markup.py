"""HTML of the Degraded tab: answers, four pictures, the sheet, the line chart, the guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.suite.degraded.drawing import draw_four, draw_restored
from apps.suite.degraded.session import Card, Choice, DegradedSession
from apps.suite.notices import escape
from apps.suite.segment.drawing import say_score
from core.degradations import KINDS

if TYPE_CHECKING:
    from core.degradations.guess import Finding
    from core.robustsam.priors import Quality
    from core.sam.pipeline import SamResult

RESTORED = {
    "degraded": "Blurred",
    "none": "No mask",
    "sam": "SAM's mask",
    "robustsam": "RobustSAM's mask",
}
CHART = (320, 170)  # px
MARGIN = (34, 12, 24, 10)  # left, top, bottom, right


def guesses_html(guesses: tuple[Finding, ...], choice: Choice) -> str:
    """Say what seems to be wrong with an uploaded picture, as an estimate."""
    if not choice.is_clear or not guesses:
        return ""
    items = "".join(
        f'<li title="{one.value:.3g} {escape(one.unit)}">{escape(one.words)}</li>'
        for one in guesses
    )
    return f'<div class="panel-title">Estimated from the pixels</div><ul class="guess">{items}</ul>'


def answers_html(session: DegradedSession) -> str:
    """Write both answers as a table: predicted IoU, area, IoU with what is known."""
    found = session.comparison
    if found is None:
        return ""
    ious = session.ious or (None, None)
    rows = "".join(
        _answer_row(title, answer, measured)
        for title, answer, measured in (
            ("SAM", found.sam, ious[0]),
            ("RobustSAM", found.robust, ious[1]),
        )
    )
    truth = session.clear is not None and session.clear.truth is not None
    against = "your mask" if truth else "SAM on the clear picture"
    note = f"IoU with {against}. " if session.ious else ""
    return (
        '<div class="panel-title">Same prompts, same picture</div><div class="scroll">'
        '<table class="objects"><thead><tr><th scope="col">Model</th>'
        '<th scope="col" class="number">Pred. IoU</th><th scope="col" class="number">Area</th>'
        f'<th scope="col" class="number">IoU</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="note">{note}The two agree to {found.agreement:.2f} (IoU).</p>'
    )


def _answer_row(title: str, answer: SamResult | None, measured: float | None) -> str:
    if answer is None:
        cells = '<td class="number">–</td><td class="number">nothing found</td>'
    else:
        result = answer.segmentation
        share = 100 * float(result.masks.any(axis=0).mean())
        cells = (
            f'<td class="number">{say_score(float(result.scores.max()))}</td>'
            f'<td class="number">{share:.1f} %</td>'
        )
    iou = "–" if measured is None else f"{measured:.3f}"
    return f'<tr><th scope="row">{title}</th>{cells}<td class="number">{iou}</td></tr>'


def four_html(session: DegradedSession) -> str:
    """Clear, degraded, SAM and RobustSAM in one row, with the IoUs under the answers."""
    if session.clear is None:
        return ""
    ious = session.ious or (None, None)
    captions = [
        "Clear" if session.choice.is_clear else "Before",
        session.choice.title,
        _caption("SAM", ious[0]),
        _caption("RobustSAM", ious[1]),
    ]
    figures = "".join(
        f'<figure><img src="{address}" alt=""><figcaption>{escape(text)}</figcaption></figure>'
        for address, text in zip(draw_four(session), captions, strict=True)
    )
    return f'<div class="four">{figures}</div>'


def _caption(model: str, iou: float | None) -> str:
    return model if iou is None else f"{model} · IoU {iou:.2f}"


def restored_html(session: DegradedSession) -> str:
    """The blurred picture and the three restored ones, each with how good it is."""
    found = session.restored
    if found is None:
        text = session.missing_to_restore() or "Press Restore to undo the blur."
        return f'<p class="placeholder">{escape(text)}</p>'
    best = max(round(one.quality.subject_psnr, 2) for one in found.results)  # as it is shown
    figures = "".join(
        f'<figure><img src="{address}" alt=""><figcaption>{escape(RESTORED[one.name])}'
        f"{_quality(one.quality, round(one.quality.subject_psnr, 2) == best)}</figcaption></figure>"
        for one, address in zip(found.results, draw_restored(found.results), strict=True)
    )
    kept = "".join(f" under the same {KINDS[name].title.lower()}" for name in found.before)
    return (
        f'<div class="four restored">{figures}</div>'
        f'<p class="note">Measured with the clear original{kept}: PSNR and SSIM of the whole '
        "picture, and around the subject. A mask tells the deblurring where colours may jump.</p>"
    )


def _quality(quality: Quality, is_best: bool) -> str:
    mark = ' class="best"' if is_best else ""
    return (
        f"<dl><dt>Picture</dt><dd>{quality.psnr:.2f} dB</dd><dd>{quality.ssim:.3f}</dd>"
        f"<dt>Subject</dt><dd{mark}>{quality.subject_psnr:.2f} dB</dd>"
        f"<dd>{quality.subject_ssim:.3f}</dd></dl>"
    )


def sheet_html(cards: tuple[Card, ...]) -> str:
    """Every kind as a card to choose; SAM's IoU and RobustSAM's as bars."""
    if not cards:
        return '<p class="placeholder">Press All kinds to see each of the fifteen here.</p>'
    figures = "".join(
        f'<button type="button" class="degradation" data-do="kind" data-kind="{card.name}" '
        f'data-focus="kind-{card.name}"><img src="{card.picture}" alt="">'
        f"<span>{escape(KINDS[card.name].title)}</span>"
        f"{_bar('SAM', card.sam_iou)}{_bar('Robust', card.robust_iou)}</button>"
        for card in cards
    )
    return f'<div class="sheet">{figures}</div>'


def _bar(label: str, iou: float) -> str:
    return (
        f'<span class="bar-row {label.lower()}"><em>{label}</em>'
        f'<i style="width:{44 * iou:.0f}%"></i><b>{iou:.2f}</b></span>'
    )


def series_html(cards: tuple[Card, ...]) -> str:
    """IoU of both models against the severity, as a line chart."""
    if not cards:
        return ""
    width, height = CHART
    left, top, bottom, right = MARGIN

    def place(severity: int, iou: float) -> tuple[float, float]:
        x = left + (severity - 1) / 4 * (width - left - right)
        return x, height - bottom - iou * (height - top - bottom)

    grid = "".join(
        f'<line x1="{left}" x2="{width - right}" y1="{place(1, v)[1]:.0f}" '
        f'y2="{place(1, v)[1]:.0f}"/><text x="{left - 6}" y="{place(1, v)[1] + 4:.0f}" '
        f'text-anchor="end">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    ticks = "".join(
        f'<text x="{place(k, 0)[0]:.0f}" y="{height - 6}" text-anchor="middle">{k}</text>'
        for k in range(1, 6)
    )
    lines = "".join(
        f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        + "".join(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points)
        for name, points in (
            ("sam", [place(card.severity, card.sam_iou) for card in cards]),
            ("robust", [place(card.severity, card.robust_iou) for card in cards]),
        )
    )
    title = escape(KINDS[cards[0].name].title)
    spoken = "; ".join(
        f"severity {c.severity}: SAM {c.sam_iou:.2f}, RobustSAM {c.robust_iou:.2f}" for c in cards
    )
    return (
        f'<div class="panel-title">{title}: IoU against severity</div>'
        f'<svg class="series" viewBox="0 0 {width} {height}" role="img" aria-label="{spoken}">'
        f"<g class=grid>{grid}{ticks}</g>{lines}</svg>"
        '<p class="legend"><span class="sam">SAM</span><span class="robust">RobustSAM</span></p>'
    )
