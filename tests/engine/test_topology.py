"""What a stage makes and which stages it feeds, as the engine's own classes say it."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine import installed
from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import ReplicaJoined
from vllm_omni_metrics_plugin.patches import replicas, topology
from vllm_omni_metrics_plugin.patches.state import EngineState


class Client:
    """A client of a stage engine, as far as it says what it is."""

    stage_type = "llm"

    def __init__(self, sources: Iterable[int]) -> None:
        self.engine_input_source = list(sources)


def configured(**fields: Any) -> Any:
    """The configuration of a stage's engine; every field has to be the engine's own."""
    from vllm_omni.config.model import OmniModelConfig

    assert set(fields) <= set(OmniModelConfig.__dataclass_fields__)
    model_config = object.__new__(OmniModelConfig)
    vars(model_config).update(fields)
    return SimpleNamespace(model_config=model_config)


def pool(stage: int, config: Any = None, sources: Iterable[int] = (), clients: int = 1) -> Any:
    from vllm_omni.engine.stage_pool import StagePool

    return StagePool(stage, [Client(sources) for _ in range(clients)], stage_vllm_config=config)


def fed(*pools: Any, configs: tuple[Any, ...] = ()) -> dict[int, tuple[int, ...]]:
    """By stage, the stages that it feeds."""
    engine = SimpleNamespace(stage_pools=list(pools), stage_configs=configs)
    return {each.stage_id: topology.feeds(engine, each) for each in pools}


CHUNKS = {"custom_process_next_stage_input_func": "module.talker2code2wav_async_chunk"}
SHM = {"name": "SharedMemoryConnector", "extra": {"stage_id": 0}}


def test_payloads_go_to_the_next_stage_that_takes_them() -> None:
    thinker = configured(**CHUNKS, stage_connector_config=SHM)
    talker = configured(**CHUNKS, stage_connector_config=SHM)
    last = configured(custom_process_next_stage_input_func=None, stage_connector_config=SHM)
    assert fed(pool(0, thinker), pool(1, talker, [0], clients=2), pool(2, last, [1])) == {
        0: (1,),
        1: (2,),
        2: (),
    }


def test_what_the_orchestrator_hands_on_itself_goes_through_no_connector() -> None:
    assert fed(pool(0, configured(stage_connector_config=SHM)), pool(1, None, [0])) == {
        0: (),
        1: (),
    }


def test_key_value_caches_go_where_the_configuration_says() -> None:
    sends = {"need_send_cache": True, "omni_from_stage": "0", "omni_to_stage": "1"}
    thinker = configured(omni_kv_config=sends)
    assert fed(pool(0, thinker), pool(1, None, [0]))[0] == (1,)
    silent = configured(omni_kv_config={**sends, "need_send_cache": False})
    assert fed(pool(0, silent), pool(1, None, [0]))[0] == ()


def test_stage_that_takes_its_input_elsewhere_is_not_fed() -> None:
    assert fed(pool(0, configured(**CHUNKS)), pool(1, None, [5]))[0] == ()


def test_stage_whose_replicas_are_not_there_yet_is_known_by_its_configuration() -> None:
    configs = (SimpleNamespace(engine_input_source=[]), SimpleNamespace(engine_input_source=[0]))
    assert fed(pool(0, configured(**CHUNKS)), pool(1, clients=0), configs=configs)[0] == (1,)
    configs = (configs[0], SimpleNamespace(engine_input_source=[7]))
    assert fed(pool(0, configured(**CHUNKS)), pool(1, clients=0), configs=configs)[0] == ()


def test_configuration_that_cannot_be_read_costs_the_announcement_nothing() -> None:
    broken = configured(omni_kv_config={"need_send_cache": True, "omni_to_stage": "next"})
    assert fed(pool(0, broken), pool(1, None, [0]))[0] == ()
    assert internal_errors.errors.counts() == {"reading the pipeline's configuration": 1}


@pytest.mark.parametrize(
    ("final_output_type", "made"), [("audio", ("audio",)), ("image", ("image",)), (None, ())]
)
def test_stage_makes_what_leaves_from_it(final_output_type: str | None, made: Any) -> None:
    assert topology.makes(installed.stage_info(final_output_type, "stage")) == made


def test_replicas_are_announced_with_what_they_make_and_feed(
    state: EngineState, recorder: Any
) -> None:
    pools = [pool(0, configured(**CHUNKS)), pool(1, None, [0], clients=2)]
    infos = [installed.stage_info(None, "talker"), installed.stage_info("audio", "code2wav")]
    engine = SimpleNamespace(
        stage_pools=pools,
        stage_vllm_configs=[None, None],
        stage_configs=(),
        get_stage_metadata=lambda stage: infos[stage],
    )

    class Omni:
        model = "tiny"

    omni: Any = Omni()
    omni.engine = engine
    replicas.introduce(omni, state)
    assert {
        (event.stage, event.replica, event.makes, event.feeds)
        for event in recorder.of(ReplicaJoined)
    } == {(0, 0, (), (1,)), (1, 0, ("audio",), ()), (1, 1, ("audio",), ())}


def test_speech_pipeline_of_the_engine_has_the_hook_that_marks_a_sender() -> None:
    """What is read in the stages' configurations is what the engine's pipelines declare."""
    from vllm_omni.model_executor.models.qwen3_tts import pipeline

    stages = next(value.stages for value in vars(pipeline).values() if getattr(value, "stages", ()))
    talker, vocoder = stages
    assert talker.async_chunk_process_next_stage_input_func
    assert not vocoder.custom_process_next_stage_input_func
    assert list(vocoder.input_sources) == [0]
    assert (vocoder.final_output, vocoder.final_output_type) == (True, "audio")
