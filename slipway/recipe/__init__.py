"""The recipe: one YAML file that says everything about a run.

`sections`, `serve`, `observability` and `loadtest` are what may be said, `loading` reads it and explains what is wrong.
"""

from slipway.recipe.loading import load_recipe, recipe_schema
from slipway.recipe.loadtest import LoadTest, Slo
from slipway.recipe.observability import Capture, Observe
from slipway.recipe.sections import Base, Data, Export, Recipe, Split, Train
from slipway.recipe.serve import Serve

__all__ = [
    "Base",
    "Capture",
    "Data",
    "Export",
    "LoadTest",
    "Observe",
    "Recipe",
    "Serve",
    "Slo",
    "Split",
    "Train",
    "load_recipe",
    "recipe_schema",
]
