"""What main and its workers share."""
