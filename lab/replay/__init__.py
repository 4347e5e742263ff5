"""Replays histories into the two event topics, with damage mixed in, and checks what became of it.

`plan` decides, `producer` sends, `prober` measures freshness from outside, `truth` checks.
"""
