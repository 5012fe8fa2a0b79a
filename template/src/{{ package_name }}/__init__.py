"""One service: `main` assembles it, `features` are yours, `platform` keeps it in production."""
