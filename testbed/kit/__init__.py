"""The operator's kit as an operator sees it, with data of real servers: ``make kit``."""
