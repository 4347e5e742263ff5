"""Members with a hidden intent per session, simulated over a catalogue of 8,807 real titles.

Their events have all that open data lacks together: watch time, action types, films and shows. The
catalogue, its genres and dates are real; what members do with it, and the episodes and popularity
of titles, come from `SimulatorParameters` alone. The process is written down in docs/simulator.md.
"""

from lab.simulator.output import simulate
from lab.simulator.parameters import SimulatorParameters

__all__ = ["SimulatorParameters", "simulate"]
