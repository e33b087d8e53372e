"""ROUGE-L of generated answers.

In: a generated and a reference text. Out: the F-measure of their longest common subsequence (Lin 2004,
https://aclanthology.org/W04-1013), 0 to 1. Words are runs of letters and digits in lower case, as in the rouge-score
package without stemming; of Chinese, Japanese and Korean each character is a word, which that package drops. Pure.
"""

from __future__ import annotations

import re

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORDS = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W_])+")


def rouge_l(prediction: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words; 0 where one of the texts has none."""
    predicted, wanted = split_words(prediction), split_words(reference)
    common = _common_length(predicted, wanted)
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def split_words(text: str) -> list[str]:
    """Return the words of a text."""
    return _WORDS.findall(text.lower())


def _common_length(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence, in time first x second and memory second."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for index, other in enumerate(second):
            row.append(above[index] + 1 if word == other else max(above[index + 1], row[index]))
        above = row
    return above[-1]
