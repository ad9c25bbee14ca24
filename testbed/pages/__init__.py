"""The tables and sections of the documentation that are made from the code they describe.

A page is written by hand; what is generated stands in it between two comments, ``<!-- name -->``
and ``<!-- end of name -->``. ``python -m testbed.pages`` renews it.
"""
