"""Load tests with Locust: real streams, an open-loop publisher, and a native swarm (README.md)."""
