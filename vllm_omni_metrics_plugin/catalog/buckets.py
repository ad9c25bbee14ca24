"""Bucket bounds by quantity; what users alert on is always a bound."""

from __future__ import annotations

#: 10 ms to 7,680 s: dense where people wait, with the usual objectives as bounds.
SECONDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3840.0, 7680.0),
)
#: The same without the sparse end: nobody waits an hour for a first packet or in a queue.
WAIT_SECONDS = (0.001, 0.0025, 0.005, *(bound for bound in SECONDS if bound <= 240.0))
#: Of one frame of a voice detector; 32 ms is how long a frame lasts.
INFERENCE_SECONDS = (
    *(0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005),
    *(0.0075, 0.01, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0),
)
#: 1 ms to 2 h; bounds as of SECONDS.
MILLISECONDS = (
    *(1.0, 2.5, 5.0),
    *(1000.0 * bound for bound in SECONDS),
)
#: Width x height: 256 x 256 is 2^16, 1024 x 1024 is 2^20.
PIXELS = tuple(float(2**power) for power in range(16, 27))
#: Dense around 1, where a listener starts to hear gaps.
RTF = (
    *(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    *(1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0),
)
#: The same, and far beyond: minutes of work for a second of video are usual.
VIDEO_RTF = (*RTF, 15.0, 20.0, 30.0, 50.0, 75.0, 100.0, 200.0, 500.0, 1000.0)
#: Denoising steps: one for distilled models, and the defaults of the pipelines.
STEPS = (
    *(1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 28.0, 30.0, 35.0),
    *(40.0, 50.0, 60.0, 75.0, 100.0, 150.0, 200.0, 500.0, 1000.0),
)
#: 1 KiB to 4 GiB.
BYTES = tuple(float(4**power) for power in range(5, 17))
#: 10 us to 10 s, in milliseconds.
HOP_MILLISECONDS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0),
    *(100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0),
)
