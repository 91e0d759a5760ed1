"""PDUs, command sets and what is said of them."""
