"""The console command: `main` finds the subcommand, every other file is one (`configs` apart)."""
