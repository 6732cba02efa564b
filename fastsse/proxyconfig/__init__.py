"""Configuration files of proxies in front of the server, made from templates in this folder.

`deploy/` holds the same files for an example; `fastsse proxy-config` prints them.
"""

from fastsse.proxyconfig.recipe import Address, Recipe, RecipeError
from fastsse.proxyconfig.render import PROXIES, errorfile, render

__all__ = ["PROXIES", "Address", "Recipe", "RecipeError", "errorfile", "render"]
