"""A CPU platform for vLLM-Omni, which ships none of its own."""


def platform_plugin() -> str:
    """Entry point of ``vllm_omni.platform_plugins``: the platform class to use."""
    return "vllm_omni_cpu.platform.CpuOmniPlatform"
