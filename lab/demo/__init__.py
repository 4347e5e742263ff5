"""The demo: the whole system on real histories, from data to checked live intents."""

from lab.demo.demo import run_demo

__all__ = ["run_demo"]
