"""The recipes by the command that a suite names them with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcbench.frameworks import axolotl, llamafactory, ms_swift, trl
from hpcbench.frameworks.recipe import Recipe
from hpcbench.schemas.request import Framework

RECIPES: Final[Mapping[Framework, Recipe]] = {
    recipe.name: recipe for recipe in (llamafactory.RECIPE, ms_swift.RECIPE, trl.RECIPE, axolotl.RECIPE)
}
