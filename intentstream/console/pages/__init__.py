"""The console's pages: each module has a `router`, whose lifespan runs what the page needs."""
