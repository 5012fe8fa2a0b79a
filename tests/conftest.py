"""What the tests of all areas share."""

pytest_plugins = ["tests.fixtures", "tests.servers.fixtures"]
