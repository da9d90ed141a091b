"""Find and read sites, devices, flavors and the user's settings; the only reader of YAML.

`catalog.formats` reads log formats; it stands apart, because all formats would come with it into every command.
"""

from .advice import advice
from .sites import flavors, folders, site, site_names
from .yaml import read

__all__ = ["advice", "flavors", "folders", "read", "site", "site_names"]
