"""The server kit: real servers on free loopback ports, stopped by their process ids."""
