"""What main and its workers tell each other, and the way it goes."""
