"""One recipe for each kind: draw its parameters, then degrade the picture with them.

Every recipe takes a picture RGB uint8 (H, W, 3) and the `Draw` of its kind, and returns a picture
of the same shape. The formulas are in the functions that the recipes call.
"""

from __future__ import annotations

import math

import numpy as np

from core.degradations import blur, colour, compression, geometry, noise, weather
from core.degradations.arrays import Picture
from core.degradations.sampling import Draw

# At a severity the fog's fine texture is drawn at this size and scaled up: it then looks alike
# in all pictures, and large ones take no seconds.
FOG_SIDE = 256


def clear(image: Picture, draw: Draw) -> Picture:
    """Leave the picture as it is."""
    return image


def snow(image: Picture, draw: Draw) -> Picture:
    """The HLS round trip, then layers of flakes."""
    picture = weather.hls_round_trip(image)
    for _ in range(draw.whole("layers")):
        speed, uniformity = draw.number("speed"), draw.number("flake_size_uniformity")
        flakes = weather.snow_flakes(
            _grains(draw, "flake_size"), blur_fraction=draw.number("blur_fraction"), speed=speed
        )
        picture = weather.snow_layer(picture, flakes, flake_size_uniformity=uniformity, speed=speed)
    return picture


def _grains(draw: Draw, size_parameter: str) -> np.ndarray:
    """Specks as large as imgaug's canvas of 1 - size of the picture makes them, times the scale."""
    return weather.falling_grains(
        draw.size,
        draw.random,
        density=draw.number("density"),
        density_uniformity=draw.number("density_uniformity"),
        grain_px=max(1.0, draw.scale / (1 - draw.number(size_parameter))),
    )


def fog(image: Picture, draw: Draw) -> Picture:
    """Clouds of fog, then faint discs of haze."""
    side = max(draw.size) if draw.published else min(FOG_SIDE, max(draw.size))
    intensity = weather.fog_intensity(
        draw.size,
        draw.random,
        mean=draw.number("intensity"),
        exponent=draw.number("intensity_exponent"),
        max_side=side,
    )
    alpha = weather.fog_alpha(
        draw.size,
        draw.random,
        least=draw.number("least_alpha"),
        exponent=draw.number("alpha_exponent"),
        max_side=draw.whole("cloud_cells"),
        density=draw.number("density"),
    )
    picture = weather.fog(image, alpha, intensity)
    coefficient = draw.number("haze")
    corners = weather.haze_corners(draw.size, coefficient, draw.random)
    return weather.haze(picture, corners, coefficient)


def rain(image: Picture, draw: Draw) -> Picture:
    """Layers of drops, each drawn out along its own direction."""
    picture = image
    for _ in range(draw.whole("layers")):
        drops = weather.fall(_grains(draw, "drop_size"), draw.number("speed"), draw.number("angle"))
        grey = weather.published_drop_grey(drops) if draw.published else weather.DROP_GREY
        picture = weather.rain_layer(picture, drops, grey=grey, opacity=draw.number("opacity"))
    return picture


def gauss_noise(image: Picture, draw: Draw) -> Picture:
    """Normal noise, independent in every value."""
    return noise.gauss_noise(
        image, noise.gauss_field(image.shape, draw.number("variance"), draw.random)
    )


def iso_noise(image: Picture, draw: Draw) -> Picture:
    """Photon noise in lightness, normal noise of color_shift · 360 · intensity degrees in hue."""
    intensity = draw.number("intensity")
    mean = draw.note("photon_mean", noise.photon_mean(image, intensity))
    photons = noise.photon_counts(draw.size, mean, draw.random)
    deviation = draw.number("color_shift") * 360 * intensity
    hue_noise = draw.random.standard_normal(draw.size, np.float32) * np.float32(deviation)
    return noise.iso_noise(image, photons, hue_noise)


def impulse_noise(image: Picture, draw: Draw) -> Picture:
    """Over-exposure."""
    return noise.impulse_noise(image, draw.number("multiplier"))


def resampling_blur(image: Picture, draw: Draw) -> Picture:
    """Lower resolution."""
    return blur.resampling_blur(image, max(1.0, draw.number("factor_px")))


def motion_blur(image: Picture, draw: Draw) -> Picture:
    """As published a random line in a kernel; at a severity a centred one of a given length.

    Off the centre, the published line also shifts the picture against its mask.
    """
    length = draw.number("length_px")
    if not draw.published:
        angle = draw.note("angle", draw.random.uniform(0, math.pi))
        return blur.motion_blur(image, blur.centred_line_kernel(length, angle))
    side = int(length)
    x0, x1, y0, y1 = draw.random.integers(0, side, 4).tolist()
    if x0 == x1:  # then a point would be no line
        y0, y1 = draw.random.choice(side, 2, replace=False).tolist()
    for value in (x0, y0, x1, y1):
        draw.note("line", value)
    return blur.motion_blur(image, blur.line_kernel(side, (x0, y0), (x1, y1)))


def zoom_blur(image: Picture, draw: Draw) -> Picture:
    """Zooming while exposing."""
    factors = np.arange(1, draw.number("largest"), draw.number("step"))
    return blur.zoom_blur(image, factors.tolist())


def color_jitter(image: Picture, draw: Draw) -> Picture:
    """Four changes of colour in random order."""
    order = draw.random.permutation(4).tolist()
    for index in order:
        draw.note("order", index)
    return colour.color_jitter(
        image,
        brightness=draw.number("brightness"),
        contrast=draw.number("contrast"),
        saturation=draw.number("saturation"),
        hue=draw.number("hue"),
        order=order,
    )


def compress(image: Picture, draw: Draw) -> Picture:
    """JPEG of a low quality."""
    return compression.compression(image, draw.whole("quality"), swap_red_blue=draw.swap_red_blue)


def elastic_transform(image: Picture, draw: Draw) -> Picture:
    """An affine map of three points moved by up to affine_px, then a smooth field."""
    reach, sigma = draw.number("affine_px"), draw.number("sigma_px")
    alpha = draw.number("alpha_px2")
    offsets = draw.random.uniform(-reach, reach, (3, 2))
    matrix = geometry.affine_matrix(draw.size, offsets)
    dx, dy = (
        geometry.smooth_noise(draw.size, sigma, draw.random) * np.float32(alpha) for _ in range(2)
    )
    draw.displacement = geometry.elastic_displacement(matrix, dx, dy)
    return geometry.elastic_transform(image, matrix, dx, dy)


def frosted_glass_blur(image: Picture, draw: Draw) -> Picture:
    """Every pixel from a random neighbour."""
    offsets = blur.glass_offsets(draw.size, draw.number("reach_px"), draw.random)
    draw.displacement = blur.glass_displacement(offsets)
    return blur.frosted_glass_blur(image, offsets)


def brightness(image: Picture, draw: Draw) -> Picture:
    """Low light."""
    return colour.brightness(image, draw.number("factor"))


def contrast(image: Picture, draw: Draw) -> Picture:
    """Hard contrast."""
    return colour.contrast(image, draw.number("factor"))
