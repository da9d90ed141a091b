"""Find and read sites, devices, flavors and the user's settings; the only reader of YAML."""

from .advice import advice
from .sites import flavors, folders, site, site_names
from .yaml import read

__all__ = ["advice", "flavors", "folders", "read", "site", "site_names"]
