import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core import images
from core.errors import ImageError
from core.settings import Settings

ORIENTATION = 0x0112

# Pillow says so, rightly, on the bytes that these tests break.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Corrupt EXIF"),
    pytest.mark.filterwarnings("ignore:Truncated File Read"),
]


def encoded(picture, format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def gradient(height=20, width=30):
    """A picture whose corners all differ."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs * 8, ys * 12, (xs + ys) * 4], axis=2).astype(np.uint8)


def png_header(width, height, depth=8, color=2):
    """A PNG that says its size and holds no pixels."""

    def chunk(kind, body):
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_come_back_pixel_for_pixel(format):
    options = {"lossless": True} if format == "WEBP" else {}
    loaded = images.load(encoded(Image.fromarray(gradient()), format, **options))
    np.testing.assert_array_equal(loaded.image, gradient())
    assert loaded.image.dtype == np.uint8
    assert (loaded.size, loaded.notices) == ((20, 30), ())


def test_jpeg_comes_back_nearly():
    data = encoded(Image.fromarray(gradient()), "JPEG", quality=95, subsampling=0)
    assert np.abs(images.load(data).image.astype(int) - gradient()).mean() < 2


def test_source_may_be_path_text_bytes_or_file(tmp_path):
    path = tmp_path / "my cat.v2.png"
    path.write_bytes(encoded(Image.fromarray(gradient())))
    with path.open("rb") as file:
        loaded = [images.load(source) for source in (path, str(path), path.read_bytes(), file)]
    for each in loaded:
        np.testing.assert_array_equal(each.image, gradient())
    assert [each.stem for each in loaded] == ["my cat.v2", "my cat.v2", "image", "my cat.v2"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation, format):
    # The stored pixels are turned so that the tag turns them back.
    upright = np.kron(np.array([[0, 255, 255], [0, 0, 255]], np.uint8), np.ones((16, 16), np.uint8))
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.T,
        6: np.rot90,
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    loaded = images.load(encoded(stored, format, exif=exif))
    assert loaded.size == (32, 48)
    assert np.abs(loaded.image[:, :, 0].astype(int) - upright).mean() < 4


def test_damaged_exif_does_not_spoil_the_picture():
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" * 3)
    assert images.load(data).size == (20, 30)


def test_unknown_orientation_is_ignored():
    exif = Image.Exif()
    exif[ORIENTATION] = 42
    loaded = images.load(encoded(Image.fromarray(gradient()), "PNG", exif=exif))
    np.testing.assert_array_equal(loaded.image, gradient())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white_and_said_so(mode):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 128, 255)  # black, from clear to opaque
    loaded = images.load(encoded(Image.fromarray(rgba).convert(mode)))
    np.testing.assert_array_equal(loaded.image[0, :, 0], [255, 127, 0])
    assert "white" in loaded.notices[0]


def test_opaque_alpha_gives_no_notice():
    rgba = np.dstack([gradient(), np.full((20, 30), 255, np.uint8)])
    loaded = images.load(encoded(Image.fromarray(rgba)))
    np.testing.assert_array_equal(loaded.image, gradient())
    assert loaded.notices == ()


def test_palette_with_a_transparent_colour():
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    loaded = images.load(encoded(picture, transparency=1))
    np.testing.assert_array_equal(loaded.image[0], [[255, 0, 0], [255, 255, 255], [0, 0, 255]])
    assert len(loaded.notices) == 1


def test_opaque_palette_and_grey_and_bilevel():
    for mode in ("P", "L", "1"):
        picture = Image.fromarray(gradient()).convert(mode)
        loaded = images.load(encoded(picture))
        np.testing.assert_array_equal(loaded.image, np.array(picture.convert("RGB")))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format):
    values = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    loaded = images.load(encoded(Image.fromarray(values), format))
    np.testing.assert_array_equal(loaded.image[0, :, 0], [0, 1, 1, 128, 255])


def test_sixteen_bit_grey_with_a_transparent_value():
    values = np.array([[0, 30000, 65535]], np.uint16)
    data = encoded(Image.fromarray(values))
    at = data.index(b"IDAT") - 4
    body = b"tRNS" + struct.pack(">H", 30000)
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    loaded = images.load(data[:at] + chunk + data[at:])
    np.testing.assert_array_equal(loaded.image[0, :, 0], [0, 255, 255])
    assert "white" in loaded.notices[0]


def test_sixteen_bit_colour_is_scaled():
    values = np.array([[[65535, 32768, 256]]], np.uint16)
    _, data = cv2.imencode(".png", values[:, :, ::-1])
    np.testing.assert_array_equal(images.load(data.tobytes()).image[0, 0], [255, 128, 1])


def test_float_tiff_is_stretched_and_said_so():
    values = np.array([[-1.0, 0.0, 3.0]], np.float32)
    loaded = images.load(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(loaded.image[0, :, 0], [0, 64, 255])
    assert "stretched" in loaded.notices[0]


def test_cmyk_jpeg_keeps_its_colours():
    red = np.full((16, 16, 3), (250, 10, 10), np.uint8)
    loaded = images.load(encoded(Image.fromarray(red).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(loaded.image.astype(int) - red).max() < 12


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_used_and_said_so(format):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    loaded = images.load(data)
    np.testing.assert_array_equal(loaded.image[4, 4], (255, 0, 0))
    assert "animated" in loaded.notices[0]


def test_a_still_gif_gives_no_notice():
    assert images.load(encoded(Image.new("RGB", (8, 8), "red"), "GIF")).notices == ()


def test_of_a_tiff_the_first_page_is_used():
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    loaded = images.load(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    np.testing.assert_array_equal(loaded.image[0, 0], (255, 0, 0))
    assert "pages" in loaded.notices[0]


def test_a_phones_second_picture_in_a_jpeg_is_no_animation():
    views = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    data = encoded(views[0], "MPO", save_all=True, append_images=views[1:])
    loaded = images.load(data)
    assert loaded.notices == ()
    assert loaded.image[0, 0, 0] > 240


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"just some text", "not a picture"),
        (b"%PDF-1.7 ...", "not a picture"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<SVG></SVG>", "SVG"),
        (png_header(0, 5), "not a picture|no pixels|damaged"),
        (png_header(5, 5), "damaged"),
        (encoded(Image.fromarray(gradient()), "ICO"), "not a picture"),
        (encoded(Image.fromarray(gradient()), "PPM"), "not a picture"),
        (encoded(Image.fromarray(gradient()), "PDF"), "not a picture"),
    ],
)
def test_what_is_not_a_picture_is_refused_in_words(data, words):
    with pytest.raises(ImageError, match=words):
        images.load(data)


@pytest.mark.parametrize("source", ["/no/such/file.png", "", "a\0b", Path(".")])
def test_a_missing_file_is_an_image_error(source):
    with pytest.raises(ImageError):
        images.load(source)


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (4097, 10, "4097×10 pixels; the limit is 4096"),
        (10, 5000, "10×5000"),
        (12000, 12000, "12000×12000"),  # Pillow warns of a bomb
        (60000, 60000, "limit of 25 megapixels"),  # Pillow refuses it as a bomb
    ],
)
def test_size_is_refused_from_the_header_alone(width, height, words):
    # The file has no pixels at all: reading any would fail with other words.
    with pytest.raises(ImageError, match=words):
        images.load(png_header(width, height))


def test_pixel_limit_counts_apart_from_the_side_limit():
    limits = Settings(max_side=4096, max_pixels=1_000_000)
    with pytest.raises(ImageError, match="1.2 megapixels; the limit is 1 mega"):
        images.load(png_header(1200, 1000), limits=limits)


def test_largest_allowed_picture_is_read():
    limits = Settings(max_side=30, max_pixels=600)
    assert images.load(encoded(Image.fromarray(gradient())), limits=limits).size == (20, 30)


def test_byte_limit_is_exact_and_reads_no_further(tmp_path):
    data = encoded(Image.fromarray(gradient()))
    images.load(data, limits=Settings(max_upload_bytes=len(data)))
    for source in (data, io.BytesIO(data)):
        with pytest.raises(ImageError, match="larger than the limit"):
            images.load(source, limits=Settings(max_upload_bytes=len(data) - 1))
    endless = io.BytesIO(data * 1000)
    with pytest.raises(ImageError):
        images.load(endless, limits=Settings(max_upload_bytes=100))
    assert endless.tell() == 101


SAMPLES = {
    "png": encoded(Image.fromarray(gradient())),
    "jpeg": encoded(Image.fromarray(gradient()), "JPEG"),
    "gif": encoded(Image.fromarray(gradient()), "GIF"),
    "webp": encoded(Image.fromarray(gradient()), "WEBP"),
    "tiff": encoded(Image.fromarray(gradient()), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(Image.fromarray(gradient()), "BMP"),
}


@given(st.sampled_from(sorted(SAMPLES)), st.floats(0, 1))
def test_a_cut_off_file_is_an_error_in_words_or_still_whole(name, share):
    data = SAMPLES[name][: int(len(SAMPLES[name]) * share)]
    try:
        assert images.load(data).size == (20, 30)
    except ImageError as error:
        assert "\n" not in error.message


def test_a_jpeg_cut_in_its_pixels_is_called_damaged():
    with pytest.raises(ImageError, match="damaged or cut off"):
        images.load(SAMPLES["jpeg"][:-60])


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_altered_bytes_never_escape_as_another_error(name, data):
    altered = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert images.load(bytes(altered)).image.shape[2] == 3
    except ImageError:
        pass


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(ImageError):
        images.load(data)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[7]], np.uint8), (7, 7, 7)),
        (np.array([[[7]]], np.uint8), (7, 7, 7)),
        (np.array([[[1, 2, 3]]], np.uint8), (1, 2, 3)),
        (np.array([[[0, 0]]], np.uint8), (255, 255, 255)),
        (np.array([[[0, 0, 0, 128]]], np.uint8), (127, 127, 127)),
        (np.array([[True]]), (255, 255, 255)),
        (np.array([[65535]], np.uint16), (255, 255, 255)),
        (np.array([[0.5]]), (128, 128, 128)),
        (np.array([[200.4]]), (200, 200, 200)),
        (np.array([[200]], np.int64), (200, 200, 200)),
        (np.array([[np.nan]]), (0, 0, 0)),
    ],
)
def test_arrays_of_every_kind(array, expected):
    loaded = images.from_array(array)
    assert loaded.image.shape == (1, 1, 3)
    assert tuple(loaded.image[0, 0]) == expected


def test_arrays_beyond_the_usual_ranges_are_stretched_with_a_notice():
    loaded = images.from_array(np.array([[-100, 0, 100]], np.int32))
    np.testing.assert_array_equal(loaded.image[0, :, 0], [0, 128, 255])
    assert "-100 to 100" in loaded.notices[0]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 5)), "5"),
        (np.zeros(7), "shape"),
        (np.zeros((0, 5, 3)), "no pixels"),
        (np.array([["a"]]), "not a picture"),
        (np.zeros((2, 5000), np.uint8), "5000×2"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array, words):
    with pytest.raises(ImageError, match=words):
        images.from_array(array)


def test_loading_does_not_alias_the_callers_array():
    array = gradient()
    loaded = images.from_array(array)
    array[:] = 0
    np.testing.assert_array_equal(loaded.image, gradient())


def test_content_hash_follows_pixels_and_shape():
    image = gradient()
    first = images.content_hash(image)
    assert len(first) == 32
    assert first == images.content_hash(image.copy()) == images.content_hash(image[::1])
    assert first != images.content_hash(image.reshape(30, 20, 3))
    changed = image.copy()
    changed[3, 4, 1] ^= 1
    assert first != images.content_hash(changed)
    assert images.content_hash(image[::2]) == images.content_hash(image[::2].copy())


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200))
def test_fit_within_keeps_the_shape_and_never_enlarges(height, width, long_side):
    image = np.zeros((height, width, 3), np.uint8)
    fitted = images.fit_within(image, long_side)
    assert max(fitted.shape[:2]) == min(max(height, width), long_side)
    if fitted is not image:
        scale = long_side / max(height, width)
        assert abs(fitted.shape[0] - height * scale) <= max(0.5, 1 - height * scale)


def test_fit_within_averages():
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    fitted = images.fit_within(np.repeat(checks[:, :, None], 3, axis=2).astype(np.uint8), 16)
    assert abs(int(fitted.mean()) - 127) <= 1
    assert fitted.std() < 2
