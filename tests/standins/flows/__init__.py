"""Small flows of our own, called as public code bases call theirs: ``CASES``.

A file for each family of ways of being called; ``case.py`` says what a case is, ``parts.py`` holds
the mathematics that the families share. Names, shapes and order of a layer's parameters, what it
keeps on itself and what it returns are those of the code bases; the code is ours.
"""

from . import (
    backward_method,
    constrained,
    context,
    freia,
    masked,
    mode,
    others,
    rev,
    reverse_method,
    running_logdet,
    speech,
    transforms,
    two_methods,
    vectors,
)
from .case import Case

CASES = [
    case
    for family in (
        running_logdet,
        reverse_method,
        speech,
        masked,
        two_methods,
        context,
        backward_method,
        mode,
        transforms,
        freia,
        vectors,
        rev,
        others,
        constrained,
    )
    for case in family.CASES
]

__all__ = ["CASES", "Case"]
