"""Who may log in: files of passwords and of keys, and what requestors show, looked at."""
