from vllm_omni_metrics_plugin.hooks import EngineStats, hookimpl


@hookimpl
def omni_engine_stats(event: EngineStats) -> None:
    stats = event.scheduler_stats
    if stats is not None:  # at most once a second
        print(f"stage {event.stage}: {stats.num_waiting_reqs} requests wait")
    else:
        print(f"stage {event.stage}: a batch")
