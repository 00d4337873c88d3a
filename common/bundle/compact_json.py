"""JSON in the style of the bundles' configs: what fits on a line stands on one."""

import json
from typing import Any

WIDTH = 118
INDENT = 4


def compact_json(config: dict[str, Any]) -> str:
    """A config as text: lists and dictionaries on one line where they fit, else a key or an item per line.

    Plain values of a list that is too long share lines; expressions, which begin with "$", have a line each.
    """
    return _lines_of(config, 0, 0, False) + "\n"


def _lines_of(value: Any, indent: int, before: int, may_be_flat: bool = True) -> str:
    """A value that begins `before` characters after the indentation."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or (may_be_flat and indent + before + len(flat) <= WIDTH):
        return flat
    deeper = indent + INDENT
    if isinstance(value, dict):
        keys = [json.dumps(key, ensure_ascii=False) + ": " for key in value]
        lines = [key + _lines_of(child, deeper, len(key)) + "," for key, child in zip(keys, value.values())]
    elif any(isinstance(child, (dict, list)) or str(child).startswith("$") for child in value):
        lines = [_lines_of(child, deeper, 0) + "," for child in value]
    else:
        lines = _filled([json.dumps(child, ensure_ascii=False) + "," for child in value], WIDTH - deeper)
    start, end = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([start, *(" " * deeper + line for line in lines)]).removesuffix(",") + f"\n{' ' * indent}{end}"


def _filled(words: list[str], width: int) -> list[str]:
    """Words put on as few lines as they fit on."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) < width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines
