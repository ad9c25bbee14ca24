"""The runbook: what each alert means, where to look first, and what to do."""

from __future__ import annotations

from vllm_omni_metrics_plugin.kit.alerts import Alert

_HEAD = """# Runbook

What to do about each alert of [alert-rules.yml](prometheus/alert-rules.yml). The first query is for
Prometheus, as it is; `vllm-omni-metrics doctor --url` of the server is a good second.
"""


def runbook(alerts: tuple[Alert, ...]) -> str:
    return "\n".join((_HEAD, *map(_section, alerts)))


def _section(alert: Alert) -> str:
    lasting = f"after {alert.lasting}" if alert.lasting != "0m" else "at once"
    return f"""## {alert.name}

{alert.meaning} Fires {lasting}; severity `{alert.severity}`.

First query:

```
{alert.first_query}
```

**Cause.** {alert.cause}

**Cure.** {alert.cure}
"""
