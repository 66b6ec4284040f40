"""Live streams: server-sent events and WebSockets, of one run or of many."""
