"""Where the test bed keeps what it makes, all of it inside the checkout and ignored by git."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTBED = ROOT / "testbed"
CACHE = ROOT / ".cache" / "testbed"
MODELS = CACHE / "models"
#: Models that a release of the engine needs its own of, one folder for each release.
OWN_MODELS = CACHE / "own-models"
#: The example packages as pip installs them; not in the environment, where every server would
#: load them.
EXAMPLES = CACHE / "examples"
#: Sources of older vLLM releases, one folder each.
RELEASES = CACHE / "releases"
