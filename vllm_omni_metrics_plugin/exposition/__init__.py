"""How a scrape is answered: what the page says, in which format, where and by whom."""

from vllm_omni_metrics_plugin.exposition.answers import Answers
from vllm_omni_metrics_plugin.exposition.port import Port

__all__ = ["Answers", "Port"]
