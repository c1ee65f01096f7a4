"""Contains migrations, recovery, checkpoints, backups and the doctor."""
