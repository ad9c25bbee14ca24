"""Generators of tiny random-weight checkpoints in the real models' layout.

Each is a module that takes the folder to write as its only argument. Same code, same bytes.
"""
