"""`make update`: brings this service to a newer version of its template, and says what is left to do."""
