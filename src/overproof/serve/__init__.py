"""The gateway: what stands in front of the teacher from the first day, and hands over to the student step by step."""
