"""These are tests of Django's own runner: tests/contrib runs them, each database in a process of its own."""

collect_ignore_glob = ["*"]
