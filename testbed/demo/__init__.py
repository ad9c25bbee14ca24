"""A server, requests and a comparison, for people to watch: ``make demo``."""
