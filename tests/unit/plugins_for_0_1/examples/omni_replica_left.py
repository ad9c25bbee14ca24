from vllm_omni_metrics_plugin.hooks import ReplicaLeft, hookimpl


@hookimpl
def omni_replica_left(event: ReplicaLeft) -> None:
    print(f"page somebody: stage {event.stage} lost replica {event.replica}")
