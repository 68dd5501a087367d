"""Recipes: YAML read, checked against the signatures it will call, before any work.

    load_recipe   file, packaged name or dict, with `section.key=value` overrides -> Recipe     load.py
    Recipe        the checked sections, each the keyword arguments of one function              load.py

A document remembers the line of every key (document.py); checks against signatures are in signature.py, those of names
and numbers in sections.py.
"""

from vitdfq.recipe.find import packaged_recipes
from vitdfq.recipe.load import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe", "packaged_recipes"]
