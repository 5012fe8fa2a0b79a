"""What the template and its services cost, measured in one way and kept in one format."""
