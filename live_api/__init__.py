"""The HTTP face: REST, SSE and WebSocket. The only importer of FastAPI."""
