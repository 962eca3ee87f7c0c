"""A serving release under watch: audits, drift, the teacher, the owner; what follows, and who is told."""
