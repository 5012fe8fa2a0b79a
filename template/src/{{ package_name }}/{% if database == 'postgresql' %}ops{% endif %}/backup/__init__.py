"""Backups that are proven by restoring them: `backup create | list | verify | restore | prune | drill | status`.

A backup is a folder of two objects: `dump.tar.age`, and `manifest.json`, which is written last. Without it there is
no backup, so a run that was cut off leaves none. The data comes from `pg_dump` and goes back by `pg_restore`, never
through `psql`, which would run what a hostile source has put into the dump (CVE-2026-18408).
"""
