"""What switching on means in this process: settings, hook plugins, exporter, patches."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.util import Finalize

from msgspec import structs

from vllm_omni_metrics_plugin import __version__, settings
from vllm_omni_metrics_plugin.channel.endpoint import Endpoint, private_endpoint
from vllm_omni_metrics_plugin.channel.frames import Carried
from vllm_omni_metrics_plugin.channel.receiver import Receiver
from vllm_omni_metrics_plugin.channel.sender import Sender
from vllm_omni_metrics_plugin.hooks import Configured, TransferFailed, plugins
from vllm_omni_metrics_plugin.hooks.events import Role
from vllm_omni_metrics_plugin.hooks.manager import BUILT_IN
from vllm_omni_metrics_plugin.patches import Patches, engine
from vllm_omni_metrics_plugin.patches.releases import BY_VERSION
from vllm_omni_metrics_plugin.patches.state import before_engine, transfers
from vllm_omni_metrics_plugin.patches.table import SEAMS
from vllm_omni_metrics_plugin.settings import Settings

logger = logging.getLogger("vllm.omni_metrics")

#: How a server tells its stage engines' processes where its private socket is.
_INHERITED = "_OMNI_METRICS_CHANNEL"


def start(environ: Mapping[str, str]) -> None:
    """Bring the plugin up, as far as this process needs it."""
    role = engine.process_role()
    if role == "model_inspection":
        return
    # Every process reads the variables; one of them complains is enough.
    warn = logger.warning if role == "server" else logger.debug
    wanted = settings.parse(environ, warn)
    if not wanted.enabled:
        return
    versions = engine.installed_versions()
    if "vllm-omni" not in versions:
        if role == "server":
            logger.info(
                "omni-metrics: vllm-omni is not installed, nothing to observe; "
                "this vLLM server runs untouched"
            )
        return
    if role == "bench":
        from vllm_omni_metrics_plugin.patches import bench

        Patches([bench.SEAM]).install()
        return
    if wanted.trace:
        plugins.trace()
    if role == "server" and BUILT_IN not in wanted.hooks_blocked:
        from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter

        plugins.register(PrometheusExporter(wanted.buckets), BUILT_IN, timed=False)
    _open_channel(wanted, role)
    plugins.load_installed(wanted, warn)
    Patches(seam for seam in SEAMS if role in seam.roles).install()
    plugins.hooks.omni_configured(
        Configured(
            settings=wanted,
            role=role,
            versions={"vllm-omni-metrics-plugin": __version__, **versions},
        )
    )
    if role == "server":
        release = versions["vllm-omni"]
        tested = "" if release in BY_VERSION else ", which it was not tested on"
        logger.info("omni-metrics %s is on for vllm-omni %s%s", __version__, release, tested)


def _open_channel(wanted: Settings, role: Role) -> None:
    """The server listens for events once it builds an engine; everybody else sends to it."""
    inherited = os.environ.get(_INHERITED)
    if wanted.channel is not None:
        endpoint = Endpoint(wanted.channel, wanted.channel_key)
    elif inherited and multiprocessing.parent_process() is not None:
        endpoint = Endpoint(inherited, private=True)
    elif role == "server":
        endpoint = private_endpoint()
        os.environ[_INHERITED] = endpoint.address
    else:
        return
    if role == "server":
        _listen(endpoint)
    else:
        sender = Sender(endpoint)
        plugins.register(sender, "channel", timed=False)
        # Children of multiprocessing come to an end by one of these, depending on how they began.
        Finalize(None, sender.close, exitpriority=100)
        atexit.register(sender.close)


def _listen(endpoint: Endpoint) -> None:
    name = multiprocessing.current_process().name
    if name.startswith("ApiServer_") and name != "ApiServer_0":
        return  # the first of several API servers listens for all

    def deliver(event: Carried) -> None:
        if isinstance(event, TransferFailed):
            model_name = transfers.model_name
            plugins.hooks.omni_transfer_failed(structs.replace(event, model_name=model_name))
        else:
            transfers.report(event)

    receiver = Receiver(endpoint, deliver, transfers.forget_outdated)
    before_engine.append(receiver.start)

    def close() -> None:
        receiver.close()
        transfers.forget_all()

    atexit.register(close)
