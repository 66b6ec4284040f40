"""A real Docker-compatible socket for the tests, and an image to run there."""
