from dataclasses import FrozenInstanceError, fields

import pytest

from core.settings import PREFIX, Settings, settings


def test_defaults_are_those_of_the_interface_specification():
    defaults = Settings()
    assert defaults.max_upload_bytes == 10 * 2**20
    assert (defaults.max_side, defaults.max_pixels) == (4096, 25_000_000)
    assert (defaults.max_points, defaults.max_boxes, defaults.max_queries) == (50, 20, 100)
    assert defaults.max_query_chars == 100
    assert defaults.host == "127.0.0.1", "a local demo must not listen to its neighbours"
    assert defaults.model_set == "embedded"


def test_an_empty_environment_gives_the_defaults():
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({PREFIX + "PORT": " "}) == Settings()


def test_variables_are_read_as_their_fields_types():
    read = Settings.from_environment(
        {
            "SEGMENT_STUDIO_PORT": "8000",
            "SEGMENT_STUDIO_MODEL_SET": "full",
            "SEGMENT_STUDIO_MODEL_MEMORY_MIB": "4000",
            "SEGMENT_STUDIO_ALLOW_DOWNLOAD": "no",
            "SEGMENT_STUDIO_UNKNOWN": "1",
            "PORT": "1",
        }
    )
    assert read == Settings(
        port=8000, model_set="full", model_memory_mib=4000, allow_download=False
    )


@pytest.mark.parametrize(
    ("name", "raw"),
    [("PORT", "abc"), ("PORT", "0"), ("ALLOW_DOWNLOAD", "maybe"), ("MODEL_SET", "huge")],
)
def test_a_wrong_variable_is_named_with_its_value(name, raw):
    with pytest.raises(ValueError, match=rf"(?i){name}.* is .*{raw}"):
        Settings.from_environment({PREFIX + name: raw})


def test_every_field_can_be_set_by_the_environment():
    samples = {int: "7", bool: "off", str: "cpu"}
    special = {"model_set": "full", "precision": "float16", "model_memory_mib": "7"}
    for field in fields(Settings):
        raw = special.get(field.name) or samples[type(field.default)]
        changed = Settings.from_environment({PREFIX + field.name.upper(): raw})
        assert str(getattr(changed, field.name)) in (raw, "False")


def test_settings_cannot_be_changed_behind_a_visitor():
    with pytest.raises(FrozenInstanceError):
        settings.port = 1
