"""The recipe: one YAML file that says everything about a run.

`sections`, `serve`, `frontdoor`, `observability`, `loadtest`, `arrivals` and `traffic` are what may be said, `loading`
reads it and explains what is wrong.
"""

from slipway.recipe.capacity import CapacitySearch
from slipway.recipe.chaos import ChaosEvent
from slipway.recipe.comparison import Compare
from slipway.recipe.frontdoor import Auth, Limits, Tls
from slipway.recipe.loading import load_recipe, load_settings, recipe_schema
from slipway.recipe.loadtest import LoadTest, Slo
from slipway.recipe.observability import Capture, Observe
from slipway.recipe.rollout import Rollout
from slipway.recipe.sections import Base, Data, Export, Recipe, Settings, Split, Train
from slipway.recipe.serve import Serve

__all__ = [
    "Auth",
    "Base",
    "CapacitySearch",
    "Capture",
    "ChaosEvent",
    "Compare",
    "Data",
    "Export",
    "Limits",
    "LoadTest",
    "Observe",
    "Recipe",
    "Rollout",
    "Serve",
    "Settings",
    "Slo",
    "Split",
    "Tls",
    "Train",
    "load_recipe",
    "load_settings",
    "recipe_schema",
]
