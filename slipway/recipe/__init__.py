"""The recipe: one YAML file that says everything about a run.

`sections` is what may be said, `loading` reads it and explains what is wrong.
"""

from slipway.recipe.loading import load_recipe, recipe_schema
from slipway.recipe.sections import Base, Data, Export, LoadTest, Recipe, Serve, Slo, Split, Train

__all__ = [
    "Base",
    "Data",
    "Export",
    "LoadTest",
    "Recipe",
    "Serve",
    "Slo",
    "Split",
    "Train",
    "load_recipe",
    "recipe_schema",
]
