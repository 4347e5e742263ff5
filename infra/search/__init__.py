"""An example of a downstream service: search candidates re-ranked on live intent, over HTTP."""
