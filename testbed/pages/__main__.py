"""Renews what is generated in the documentation: ``python -m testbed.pages``."""

from __future__ import annotations

from testbed.pages.places import PLACES, render

if __name__ == "__main__":
    for page in PLACES:
        page.write_text(render(page))
