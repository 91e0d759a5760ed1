"""What main and its workers tell each other."""
