"""The engine's bench client and the server's families, side by side under one vocabulary."""
