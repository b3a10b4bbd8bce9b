"""Training students and reward models from a teacher: MOHAWK, MambaInLlama, fine-tuning, ORM and PRM."""
