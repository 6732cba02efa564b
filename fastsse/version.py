"""The one place that holds the version; setuptools and the package read it here."""

__version__ = "0.1.0"
