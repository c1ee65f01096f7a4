"""Migrations, recovery, checkpoints, backups and the doctor."""
