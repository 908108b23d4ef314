"""What this project claims of its speed, measured: see README.md beside this file."""
