"""How an operator reaches a running service: it knows messages, and main hands it the rest."""
