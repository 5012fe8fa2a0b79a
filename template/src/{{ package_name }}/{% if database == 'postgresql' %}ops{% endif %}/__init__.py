"""Operations: what is run beside the service, by people and schedules."""
