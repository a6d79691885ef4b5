"""The shim is tested in processes of its own: importing torchvision cannot be undone."""

import subprocess
import sys
import textwrap
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import core.models.torchvision_shim as shim

PROJECT = Path(__file__).parents[3]


def run_python(code: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def naive_nms(boxes: list[tuple[float, ...]], scores: list[float], threshold: float) -> list[int]:
    """Every pair, in plain Python floats."""

    def area(box: tuple[float, ...]) -> float:
        return (box[2] - box[0]) * (box[3] - box[1])

    def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        union = area(a) + area(b) - width * height
        return width * height / union if union else 0.0

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


side = st.integers(0, 12)
box = st.tuples(side, side, side, side).map(lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3]))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(box, st.sampled_from([0.1, 0.4, 0.4, 0.7, 0.9])), max_size=25),
    st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9, 1.0]),
)
def test_nms_equals_every_pair_compared(scored, threshold):
    boxes = [b for b, _ in scored]
    scores = [s for _, s in scored]
    dets = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    kept = shim.nms(dets, torch.tensor(scores, dtype=torch.float64), threshold)
    assert kept.dtype == torch.int64
    assert kept.tolist() == naive_nms(boxes, scores, threshold)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_nms_on_many_random_boxes(seed, count):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 100
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60
    boxes = torch.cat([corner, corner + sides], dim=1)
    scores = torch.rand(count, generator=generator)
    kept = shim.nms(boxes, scores, 0.5).tolist()
    assert kept == naive_nms(boxes.tolist(), scores.tolist(), 0.5)


def test_threshold_is_compared_in_double_precision():
    # IoU is exactly 0.1 in float32, a little more than the double 0.1: the kernel suppresses.
    boxes = torch.tensor([[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert shim.nms(boxes, torch.tensor([0.9, 0.8]), 0.1).tolist() == [0]


def test_half_precision_and_empty_input():
    boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 4], [8, 8, 9, 9]], dtype=torch.float16)
    assert shim.nms(boxes, torch.tensor([0.1, 0.2, 0.3]).half(), 0.5).tolist() == [2, 1]
    assert shim.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_torchvision_and_its_dependants_work_after_the_shim():
    output = run_python(
        """
        import core.models.torchvision_shim
        import torch
        from torchvision.ops import batched_nms, nms
        import segment_anything, timm

        boxes = torch.tensor([[0., 0, 10, 10], [1, 1, 10, 10], [0, 0, 10, 10]])
        scores = torch.tensor([0.5, 0.9, 0.7])
        print(nms(boxes, scores, 0.5).tolist())
        print(batched_nms(boxes, scores, torch.tensor([0, 0, 1]), 0.5).tolist())
        """
    )
    assert output.split("\n")[:2] == ["[1]", "[1, 2]"]


def test_without_operators_the_shim_is_active_and_once_only():
    output = run_python(
        """
        try:
            import torchvision
            broken = False
        except RuntimeError:
            broken = True
        import core.models.torchvision_shim as shim
        print(shim.ACTIVE == broken, shim.install())
        """
    )
    assert output.split() == ["True", "False"]


def test_nothing_changes_where_the_operators_exist():
    """Operators that someone else has defined, as a whole torchvision does, are left alone."""
    output = run_python(
        """
        import sys
        import torch
        try:
            import torchvision
        except RuntimeError:
            for name in [n for n in sys.modules if n.startswith("torchvision")]:
                del sys.modules[name]
            theirs = torch.library.Library("torchvision", "FRAGMENT")
            theirs.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            theirs.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            theirs.impl("nms", lambda dets, scores, iou_threshold: torch.tensor([0]), "CPU")
            import torchvision
        before = torchvision.extension._has_ops
        import core.models.torchvision_shim as shim
        print(shim.ACTIVE, shim._library, torchvision.extension._has_ops is before)
        print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).tolist())
        """
    )
    assert output.split() == ["False", "None", "True", "[0]"]


def test_another_failure_of_torchvision_is_not_hidden(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('something else')")
    output = run_python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        try:
            import core.models.torchvision_shim
        except RuntimeError as error:
            print(error)
        """
    )
    assert output.strip() == "something else"
