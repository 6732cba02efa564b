"""HTTP/1.1 on the wire: listeners, connections, the parser, the route table."""
