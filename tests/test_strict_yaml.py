"""YAML: what is read as it looks, and what is refused in one line."""

from pathlib import Path

import pytest

from bench import strict_yaml
from bench.errors import UsageError

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("[1, two, true]", [1, "two", True]),
        ("2024-01-01", "2024-01-01"),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("", None),
    ],
)
def test_values_are_what_they_look_like(text: str, value: object) -> None:
    assert strict_yaml.parse(text, "it") == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{a: 1, a: 2}", "the key 'a' twice in line 1"),
        ("a: 1\nb: {c: 1,\n  c: 2}", "the key 'c' twice in line 3"),
        ("1: a", "a key that is no text in line 1"),
        ("[a, b]: c", "a key that is no text in line 1"),
        ("a: &a [*a]", "an anchor within itself in line 1"),
        (LAUGHS, "anchors that stand for more than 100,000 values"),
        ("a: [", "is not YAML"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("\x00", "is not YAML"),
        ("[" * 5000, "it"),
    ],
)
def test_what_is_ambiguous_or_boundless_is_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        strict_yaml.parse(text, "it")
    assert str(error.value).startswith("it")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"), [(b"\xff\xfe", "is no text in UTF-8"), (b"- a", "wanted a mapping with a, b")]
)
def test_a_file_that_is_no_mapping_is_told_with_its_name(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "g.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"grid .*g\.yaml.*" + told):
        strict_yaml.read(tmp_path / "g.yaml", "grid", ["a", "b"])


def test_a_file_that_is_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        strict_yaml.read(tmp_path, "grid", ["a", "b"])
