"""Bot4's trading process: loads the promoted models and trades, and never trains."""

__version__ = "0.1.0"
