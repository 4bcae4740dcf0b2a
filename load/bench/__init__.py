"""`make bench`: the speed of the gateway beside its yardsticks, in one run.

A server that is measured has one core to itself; the load generator, the provider and the databases have the
others. Those that are compared take turns, so that the machine's moods meet all of them, and a ratio is the
median of the rounds' own ratios. Read `__main__.py` first: it names the parts.
"""
