"""Processes and sockets: the supervisor with its acceptor, and the workers."""
