"""The event channel: from the processes where bytes move to the one that serves /metrics.

Each process with stages in it has a sender, the server has the receiver. Senders never block the
engine: what does not fit is dropped and counted. A receiver takes only frames of known events.
"""
