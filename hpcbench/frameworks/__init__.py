"""Recipes for trainings by other frameworks: what a suite's arguments are in that framework's file, and what it logs.

In: resolved arguments, or the files that a framework left. Out: settings and a command line, reasons why something
cannot be expressed, or figures. It starts nothing, and imports none of the frameworks.
"""

from hpcbench.frameworks.recipe import Recipe, Run
from hpcbench.frameworks.recipes import RECIPES

__all__ = ["RECIPES", "Recipe", "Run"]
