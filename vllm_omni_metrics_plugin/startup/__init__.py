"""What switching on means in this process: settings, hook plugins, exporter, patches."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.util import Finalize

from msgspec import structs

from vllm_omni_metrics_plugin import __version__, api_servers, settings
from vllm_omni_metrics_plugin.channel.endpoint import Endpoint, private_endpoint
from vllm_omni_metrics_plugin.channel.frames import WireEvent
from vllm_omni_metrics_plugin.channel.listener_lock import ListenerLock
from vllm_omni_metrics_plugin.channel.receiver import Receiver
from vllm_omni_metrics_plugin.channel.sender import Sender
from vllm_omni_metrics_plugin.hooks import Configured, TransferFailed, plugins
from vllm_omni_metrics_plugin.hooks.events import Role
from vllm_omni_metrics_plugin.hooks.loading import BUILT_IN, load_installed
from vllm_omni_metrics_plugin.patches import Patches, process
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION
from vllm_omni_metrics_plugin.patches.state import before_engine, transfers
from vllm_omni_metrics_plugin.patches.table import seams_of
from vllm_omni_metrics_plugin.settings import Settings

logger = logging.getLogger("vllm.omni_metrics")

#: How a server tells its stage engines' processes where its private socket is.
_INHERITED = "_OMNI_METRICS_CHANNEL"
#: Beside the numbers of several API servers: the lock of the one that listens on the channel.
_TURN = "omni-metrics-listener.lock"


def start(environ: Mapping[str, str]) -> None:
    """Bring the plugin up, as far as this process needs it."""
    role = process.process_role()
    if role == "model_inspection":
        return
    # Every process reads the variables; one of them complains is enough.
    warn = logger.warning if role == "server" else logger.debug
    wanted = settings.parse(environ, warn)
    if not wanted.enabled:
        return
    versions = process.installed_versions()
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
    several = role == "server" and api_servers.is_on(environ)
    if several:
        # First, and so the last of all that this process does at its end.
        atexit.register(api_servers.withdraw_gauges)
    if role == "server" and BUILT_IN not in wanted.hooks_blocked:
        from vllm_omni_metrics_plugin.exporters.prometheus.exporter import PrometheusExporter

        plugins.register(PrometheusExporter(wanted.buckets), BUILT_IN, timed=False)
    _open_channel(wanted, role)
    load_installed(plugins, wanted, warn)
    Patches(seam for seam in seams_of(versions["vllm-omni"]) if role in seam.roles).install()
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
        if several and api_servers.is_first():
            _log_limits()


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
    def deliver(event: WireEvent) -> None:
        if isinstance(event, TransferFailed):
            model_name = transfers.model_name
            plugins.hooks.omni_transfer_failed(structs.replace(event, model_name=model_name))
        else:
            transfers.report(event)

    receiver = Receiver(endpoint, deliver, transfers.forget_outdated)
    turn = None
    if api_servers.is_one_of_several() and api_servers.is_on(os.environ):
        turn = ListenerLock(api_servers.folder(os.environ) / _TURN, receiver.start)
    before_engine.append(receiver.start if turn is None else turn.begin)

    def close() -> None:
        if turn is not None:
            turn.stop_waiting()
        receiver.close()
        transfers.forget_all()
        if turn is not None:
            turn.release()

    atexit.register(close)


def _log_limits() -> None:
    said = "; ".join(
        f"{', '.join(limit.families)}: {limit.reason}" for limit in api_servers.limits()
    )
    logger.info("omni-metrics: several API servers share their numbers through files. %s", said)
