"""What the frozen text tower says of a class's states; the sentences of a class only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from faprompt.prompts.templates import Average, mean_direction, sentences
from faprompt.prompts.words import Speaker


class StateTexts:
    """Features of every template filled with every state of a class. A cache of constants.

    While a model is exported or compiled nothing is kept: those tensors have no values.

    Args:
        states: phrases of the normal states, then of the abnormal ones.
        templates: class name -> the sentences around them.
        raw: class names keep their underscores.
    """

    def __init__(
        self,
        states: Sequence[Sequence[str]],
        templates: Callable[[str], Sequence[str]],
        *,
        raw: bool = False,
    ) -> None:
        self._states, self._templates, self._raw = states, templates, raw
        self._encoded: dict[tuple[str, str], list[Tensor]] = {}

    def features(self, speaker: Speaker, class_name: str) -> list[Tensor]:
        """Of the normal, then the abnormal sentences: (m, D), not normalised.

        Raises:
            ValueError: a word this backbone has no token for.
        """
        key = (class_name, str(speaker.text.positional_embedding.device))
        if key in self._encoded:
            return self._encoded[key]
        lines = self._templates(class_name)
        with torch.inference_mode(False), torch.no_grad():  # kept, and training may follow
            found = [
                speaker.encode_texts(sentences(lines, words, class_name, raw=self._raw))
                for words in self._states
            ]
        if not torch.compiler.is_compiling():
            self._encoded[key] = found
        return found

    def pair(
        self, speaker: Speaker, class_name: str, average: Average = "norm-mean-norm"
    ) -> Tensor:
        """(2, D), unit length: normal and abnormal."""
        features = self.features(speaker, class_name)
        return torch.stack([mean_direction(rows, average) for rows in features])
