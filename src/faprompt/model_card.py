"""The README.md of a model folder, in the form that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(config: Mapping[str, Any]) -> str:
    """The folder's README.md: what it is, how to use it, what it was trained on."""
    from faprompt.methods.registry import method_class  # not where folders are only listed

    training = "\n".join(f"- {key}: {value}" for key, value in config["training"].items())
    kind, known, told = "zero-shot", "", ""
    if method_class(config["method"]).full_shot:
        kind, (known, told) = "full-shot", _known_classes(config["options"].get("classes", ()))
    return (
        f"---\nlibrary_name: faprompt\ntags: [anomaly-detection, {kind}]\n"
        f"license: {config['license']}\n---\n\n# {config['name']}\n\n"
        f"`{config['method']}` on the frozen backbone `{config['backbone']['name']}` "
        f"(weights {config['backbone']['fingerprint'][:12]}).\n\n{known}"
        f"```python\nimport faprompt\n\ndetector = faprompt.load_detector(FOLDER{told})\n"
        'result = detector.predict("part.png")\n```\n\n'
        f"## Training\n\n{training or 'Not recorded.'}\n"
    )


def recorded_note(described: Mapping[str, Any]) -> str:
    """What a model folder's config, or a detector's description, says of its preset; or "".

    Example:
        >>> recorded_note({"training": {"note": "preset paper is of 518 pixels"}})
        'preset paper is of 518 pixels'
        >>> recorded_note({})
        ''
    """
    return str(described.get("training", {}).get("note", ""))


def recorded_preset(described: Mapping[str, Any]) -> str | None:
    """Return the preset that a model folder's config or a detector's description names, or None.

    Example:
        >>> recorded_preset({"training": {"preset": "official"}}), recorded_preset({})
        ('official', None)
    """
    return described.get("training", {}).get("preset")


def _known_classes(classes: Sequence[str]) -> tuple[str, str]:
    """What the card of a full-shot model says of its classes, and how one of several is told."""
    listed = ", ".join(f"`{name}`" for name in classes) or "none yet"
    if len(classes) == 1:
        names = "Pictures are taken to show it"
    else:
        names = "`class_name`, or `--class-name`, says which of them a picture shows"
    known = (
        f"Full-shot: it has learned the normal pictures of these classes and knows no others: "
        f"{listed}. {names}; another name is refused, and a picture of another thing gets "
        "a score that means nothing.\n\n"
    )
    return known, f", class_name={classes[0]!r}" if len(classes) > 1 else ""
