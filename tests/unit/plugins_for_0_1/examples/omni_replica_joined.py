from vllm_omni_metrics_plugin.hooks import ReplicaJoined, hookimpl


@hookimpl
def omni_replica_joined(event: ReplicaJoined) -> None:
    print(f"{event.model_name}: replica {event.replica} of {event.stage_name} is there")
