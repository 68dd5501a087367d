"""Recipes: YAML that is read and checked against the functions it calls, before any work.

    load_recipe   file, packaged name or dict, with `section.key=value` overrides -> Recipe     load.py
    Recipe        the checked sections, each the keyword arguments of one function              recipe.py
    Comparison    the section `compare`                                                         sections.py
    rows_of       the rows of one table, from recipes that differ in their images only          comparison.py

find.py finds the file, reader.py parses it to a Document (document.py), which knows the line of every key; extends.py puts it on
top of its base, old_names.py reads keys that were renamed. Keys and types are checked against signatures (signature.py), values
by the functions themselves (sections.py, blame.py). The schema (schema.py) finds the right place of a key that stands elsewhere.
packaged/ holds the recipes that come with the package.
"""

from vitdfq.recipe.find import packaged_recipes
from vitdfq.recipe.load import load_recipe
from vitdfq.recipe.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "packaged_recipes"]
