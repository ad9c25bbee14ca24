"""What the plugin costs, measured: ``make bench``."""
