"""TLS: what the receiver shows and asks for, and the words that it shares with the sender."""
