"""YAML as people write it by hand, read without its traps: what is ambiguous or boundless is refused in one line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UsageError

MOST = 100_000  # nodes of a file, its anchors written out


class _Loader(yaml.SafeLoader):
    """Text, numbers, booleans, lists and mappings with distinct keys of text; no dates."""


# Without dates: `2024-01-01` stays a text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(path: Path, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """The mapping in a file, of those keys; UsageError, which begins with `what` and the path, for what is none."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {path} is no text in UTF-8: byte {error.start}") from error
    content = parse(text, f"{what} {path}")
    if not isinstance(content, dict):
        raise UsageError(f"{what} {path}: wanted a mapping with {', '.join(keys)}")
    return content


def parse(text: str, what: str) -> Any:
    """The value of a text; UsageError, which begins with `what`, for what is no YAML or must not be."""
    try:
        node = yaml.compose(text, _Loader)
        if node is None:
            return None
        _measure(node, {}, ())
        return _Loader("").construct_document(node)
    except yaml.YAMLError as error:
        raise UsageError(f"{what} is not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, RecursionError) as error:  # of numbers and nesting beyond Python's own limits
        raise UsageError(f"{what}: {' '.join(str(error).split())}") from error


def _measure(node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """How many nodes it is, its anchors written out; a YAMLError for more than MOST, and for what else is refused."""
    if id(node) in above:
        raise yaml.YAMLError(f"an anchor within itself{_place(node)}")
    if id(node) not in sizes:
        children = _children(node) if isinstance(node, yaml.CollectionNode) else []
        size = 1 + sum(_measure(child, sizes, (*above, id(node))) for child in children)
        if size > MOST:
            raise yaml.YAMLError(f"anchors that stand for more than {MOST:,} values{_place(node)}")
        sizes[id(node)] = size
    return sizes[id(node)]


def _children(node: yaml.CollectionNode) -> list[yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return list(node.value)
    keys = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in {"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"}:
            raise yaml.YAMLError(f"a key that is no text{_place(key)}")
        if key.value in keys:
            raise yaml.YAMLError(f"the key {key.value!r} twice{_place(key)}")
        keys.add(key.value)
    return [value for _, value in node.value]


def _place(node: yaml.Node) -> str:
    return f" in line {node.start_mark.line + 1}"
