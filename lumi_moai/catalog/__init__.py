"""Find and read sites, devices, flavors and the user's settings; the only reader of YAML."""

from .sites import flavors, folders, site, site_names
from .yaml import read

__all__ = ["flavors", "folders", "read", "site", "site_names"]
