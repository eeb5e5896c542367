"""What every implementation costs on named cases, timed only after its numbers were checked."""
