"""Recipes: YAML read, checked against the signatures it will call, before any work.

    load_recipe   file, packaged name or dict, with `section.key=value` overrides -> Recipe     load.py
    Recipe        the checked sections, each the keyword arguments of one function              load.py
    Comparison    the section `compare`                                                       compare_section.py
    rows_of       the rows of one table, of recipes that fit in one                            comparison.py

A document (document.py) remembers the line of every key (reader.py). Keys and types are checked against signatures
(signature.py), names and ranges against the library's dict literals (sections.py).
"""

from vitdfq.recipe.find import packaged_recipes
from vitdfq.recipe.load import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe", "packaged_recipes"]
