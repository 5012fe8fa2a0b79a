"""Operations: commands that people and schedules run, outside the service."""
