"""The console: one live page on the real system. `intentstream console` serves it."""
