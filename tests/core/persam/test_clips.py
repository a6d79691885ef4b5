import numpy as np
import pytest
from PIL import Image

from core.errors import ImageError
from core.persam.clips import ClipLimits, davis_palette, read_clip, write_clip, write_davis

pytest.importorskip("av")


def frames(count=6, size=(48, 64)):
    """A bright square that moves to the right."""
    made = []
    for n in range(count):
        frame = np.full((*size, 3), 40, np.uint8)
        frame[10:30, 4 * n : 4 * n + 20] = (200, 120, 60)
        made.append(frame)
    return made


@pytest.fixture
def path(tmp_path):
    return write_clip(tmp_path / "clip.mp4", frames(), 12)


def test_a_written_clip_comes_back(path):
    clip = read_clip(path)
    assert len(clip.frames) == 6 and clip.size == (48, 64) and clip.frame_rate == 12
    for ours, original in zip(clip.frames, frames(), strict=True):
        assert np.abs(ours.astype(int) - original).mean() < 6
    assert len(read_clip(path.read_bytes()).frames) == 6


def test_odd_sides_lose_a_row(tmp_path):
    clip = read_clip(write_clip(tmp_path / "odd.mp4", frames(3, (47, 65)), 10))
    assert clip.size == (46, 64)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ClipLimits(max_frames=5), "more than 5 frames"),
        (ClipLimits(max_side=50), "64×48"),
        (ClipLimits(max_bytes=100), "MiB"),
    ],
)
def test_limits_are_named(path, limits, message):
    with pytest.raises(ImageError, match=message):
        read_clip(path, limits)


def test_what_is_no_clip(tmp_path):
    still = tmp_path / "one.gif"
    Image.new("RGB", (20, 20)).save(still)
    with pytest.raises(ImageError, match="1 frames"):
        read_clip(still)
    with pytest.raises(ImageError, match="damaged"):
        read_clip(b"no video at all" * 10)


def test_a_list_of_files_is_no_clip(path, tmp_path):
    """FFmpeg's own lists would open whatever file they name, themselves included."""
    listed = path.parent / "list.mp4"
    for name in (path.name, listed.name):
        listed.write_text(f"ffconcat version 1.0\nfile {name}\n")
        with pytest.raises(ImageError, match="unknown kind"):
            read_clip(listed)


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        ("mp4", "libx264"),
        ("webm", "libvpx"),
        ("avi", "mpeg4"),
        ("mkv", "libx264"),
        ("mov", "libx264"),
    ],
)
def test_every_kind_that_is_offered(tmp_path, ending, codec):
    import av

    file = tmp_path / f"clip.{ending}"
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for shade in (0, 120, 240):
            pixels = np.full((16, 32, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    clip = read_clip(file)
    assert clip.size == (16, 32) and len(clip.frames) == 3
    frames = [Image.new("RGB", (32, 16), (shade,) * 3) for shade in (0, 120, 240)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    assert len(read_clip(tmp_path / "clip.gif").frames) == 3


def test_davis_layout(tmp_path):
    labels = [np.full((4, 5), k, np.uint8) for k in (0, 2)]
    paths = write_davis(tmp_path, "cows", labels, first=3)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        "cows/00003.png",
        "cows/00004.png",
    ]
    with Image.open(paths[1]) as picture:
        assert picture.mode == "P" and np.array_equal(np.array(picture), labels[1])
        assert picture.convert("RGB").getpixel((0, 0)) == (0, 128, 0)


def test_davis_colours():
    palette = np.array(davis_palette()).reshape(256, 3)
    assert palette[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[255].tolist() == [224, 224, 192]
