"""The conformance cases, a group per module; ``suite.SinkConformance`` is all of them together."""
