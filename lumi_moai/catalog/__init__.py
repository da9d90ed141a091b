"""Find and read sites, devices, flavors and the user's settings; the only reader of YAML."""

from .advice import advice
from .formats import log_formats
from .sites import flavors, folders, site, site_names
from .yaml import read

__all__ = ["advice", "flavors", "folders", "log_formats", "read", "site", "site_names"]
