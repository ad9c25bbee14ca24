"""Clients of a server that know of a response what /metrics has to say of it."""
