"""Tables of settings, engine releases and the limits of several API servers."""

from __future__ import annotations

from vllm_omni_metrics_plugin import api_servers, settings
from vllm_omni_metrics_plugin.patches.seams.releases import RELEASES
from vllm_omni_metrics_plugin.patches.table import ABSENT, seams_of
from vllm_omni_metrics_plugin.tables import markdown


def variables() -> str:
    rows = ((f"`{v.name}`", v.default, v.meaning) for v in settings.VARIABLES)
    return markdown(("variable", "default", "meaning"), rows)


def engines() -> str:
    """Each patch by release; the tests of ``tests/contract`` hold the engine's sources to it."""
    here = {release.version: {s.name for s in seams_of(release.version)} for release in RELEASES}
    names = dict.fromkeys(name for names in here.values() for name in sorted(names))
    rows = [
        (
            f"`{name}`",
            *("yes" if name in here[release.version] else "-" for release in RELEASES),
            ABSENT.get(name, ""),
        )
        for name in names
    ]
    return markdown(
        ("patch", *(release.version for release in RELEASES), "where it is absent"),
        [
            ("with vLLM", *(release.vllm for release in RELEASES), ""),
            ("tested", *(r.tested for r in RELEASES), ""),
            *rows,
        ],
    )


def limits() -> str:
    rows = (
        (", ".join(f"`{name}`" for name in limit.families), limit.reason)
        for limit in api_servers.limits()
    )
    return markdown(("families", "with several API servers"), rows)
