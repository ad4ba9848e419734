"""A server for editors: completions over HTTP, and the playground page."""
