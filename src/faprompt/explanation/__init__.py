"""Explain scores: maps, prompts, patches and terms, as pictures and as numbers."""

from __future__ import annotations

from faprompt.explanation.explanation_run import Explained, explain_files
from faprompt.explanation.picture_explanation import Explanation, explain_picture
from faprompt.explanation.vocabulary import NearWord, Vocabulary

__all__ = [
    "Explained",
    "Explanation",
    "NearWord",
    "Vocabulary",
    "explain_files",
    "explain_picture",
]
